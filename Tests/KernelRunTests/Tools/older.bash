# The 5.10 kernel, which has no L0. Arguments: the culvert program, the tests' program.
source "$(dirname "$0")/parts.bash"
culvert=$1 tests=$2

part release uname -r
part preflight "$culvert" preflight --output json
part node bash "$(dirname "$0")/node.bash" "$culvert"
# The levels that there are: where connections go, that none gets out while the proxy is down, that nothing stays.
export CULVERT_TEST_LEVELS="L1 L2 L3"
level='outboundConnections|theApplicationSees|anAbsentProxyRefuses|aFamilyWithout|captureOutlives|whatIsNoLongerWanted'
part suites "$tests" --testing-library swift-testing --no-parallel --filter "MeshKernelTests.LevelTests/($level)"
