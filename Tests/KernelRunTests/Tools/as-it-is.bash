# The 6.1 kernel with everything it has. Arguments: the culvert program, the tests' program.
source "$(dirname "$0")/parts.bash"
culvert=$1 tests=$2

part release uname -r
part preflight "$culvert" preflight --output json
part ktls python3 "$(dirname "$0")/ktls.py"
part node bash "$(dirname "$0")/node.bash" "$culvert"
# What a kernel can spoil, each test at every level: where connections go, that nothing leaks and that nothing stays;
# DNS where modules of the packet filter capture it; direct connections from the rule to their end; of T2 what holds where
# the kernel is unfit for it, as this one is. Every capture test passes here, but in emulation all of them take a quarter of an hour.
level='outboundConnections|anAbsentProxyRefuses|connectionsFromOutside|whatIsNoLongerWanted'
direct='withoutARule|whatIsAllowedGoesStraight|openConnectionsAreListed|aWorkloadTakes'
accelerated='anUnfitKernel'
dns='aSocketThatLivesOn'
part suites "$tests" --testing-library swift-testing --no-parallel --filter \
    "MeshKernelTests.(LevelTests/($level)|DNSCaptureTests/$dns|DirectTests/($direct)|AccelerateTests/($accelerated))"
