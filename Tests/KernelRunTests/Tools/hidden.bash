# The 6.1 kernel, its features hidden one after the other. Argument: the culvert program.
source "$(dirname "$0")/parts.bash"
culvert=$1

preflight() { "$culvert" preflight --output json "$@"; }
lacking() { setpriv --bounding-set "-$1" -- "$culvert" preflight --output json; }
nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups -- "$culvert" preflight --output json; }

# As where the module is missing: nothing has asked for it yet, and from here on a request does not load it.
printf 'install nf_tables /bin/false\n' >/etc/modprobe.d/culvert-hidden.conf
part without-nft preflight
rm /etc/modprobe.d/culvert-hidden.conf

for capability in bpf net_admin; do part "without-$capability" lacking "$capability"; done
part nobody nobody

echo 0 >/proc/sys/user/max_net_namespaces
part without-namespaces preflight
echo 10000 >/proc/sys/user/max_net_namespaces

# As on a machine with the old cgroups only, and on one with both.
umount /sys/fs/bpf
umount /sys/fs/cgroup
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/memory /sys/fs/cgroup/unified
mount -t cgroup -o memory memory /sys/fs/cgroup/memory
part legacy-cgroups preflight --require L0
mount -t bpf -o mode=0700 bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
part hybrid-cgroups preflight --require L0
