# The 6.1 kernel booted with less: no IPv6, no tls and tcp_diag modules, lockdown. Arguments: the culvert program, the tests' program.
source "$(dirname "$0")/parts.bash"
culvert=$1 tests=$2

part lockdown cat /sys/kernel/security/lockdown
part ipv6 test -e /proc/sys/net/ipv6
part ktls python3 "$(dirname "$0")/ktls.py"
part preflight "$culvert" preflight --output json
# Those of the capture suite that speak IPv4 only: what preflight calls usable has to work.
part suites "$tests" --testing-library swift-testing --no-parallel \
    --filter 'MeshKernelTests.*/(boundSources|acceptedSockets|otherNamespaces)'
