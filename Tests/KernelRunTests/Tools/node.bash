# A node proxy with two workloads of its own, from start to uninstall. Argument: the culvert program; culvert-node is
# beside it. Each line that it prints is a fact for the test to judge.
set -eu
culvert=$1 work=$(mktemp -d)
say() { printf '%s\n' "$*"; }
mkdir "$work/config" "$work/state"
ip link add br0 type bridge
ip addr add 10.66.0.1/24 dev br0
ip link set br0 up
for pod in shop:2 client:3; do
    name=${pod%:*} address=10.66.0.${pod#*:}
    ip netns add "$name"
    ip -n "$name" link set lo up
    ip -n "$name" link add eth0 type veth peer name "v-$name" netns 1
    ip link set "v-$name" master br0 up
    # A link-local address would appear when its duplicate address detection is over, between before and after.
    ip -n "$name" link set eth0 addrgenmode none
    ip -n "$name" addr add "$address/24" dev eth0
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default via 10.66.0.1
    cat >>"$work/config/mesh.yaml" <<YAML
---
apiVersion: culvert.dev/v1alpha1
kind: Workload
metadata: {name: $name, namespace: default}
spec: {addresses: [$address], node: guest, serviceAccount: $name, protocol: TLS, netns: /run/netns/$name, acceleration: sockmap}
YAML
done
seen() { ip -n "$1" rule; ip -n "$1" route show table all; ip netns exec "$1" sysctl net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect; ls /sys/fs/bpf; }
for name in shop client; do seen "$name" >"$work/$name.before"; done

ip netns exec shop python3 -c '
import socket
listener = socket.create_server(("10.66.0.2", 8080))
while True:
    peer, address = listener.accept()
    peer.sendall(address[0].encode() + b" said " + peer.recv(100))
    peer.close()' &
server=$!
call() {
    ip netns exec client timeout 30 python3 -c '
import socket
try:
    peer = socket.create_connection(("10.66.0.2", 8080), 20)
    peer.sendall(b"hello")
    print(peer.recv(100).decode())
except OSError as error:
    print(type(error).__name__, error.errno)'
}
"${culvert%/*}/culvert-node" --node-name guest --config "$work/config" --state-dir "$work/state" --run-dir "$work/run" \
    >"$work/log" 2>&1 &
node=$!
for _ in $(seq 120); do
    curl -fsS http://127.0.0.1:15021/healthz/ready >"$work/ready" 2>&1 && break
    kill -0 "$node" || break
    sleep 1
done
say "ready: $(cat "$work/ready")"
say "status: $("$culvert" status | grep -i level | xargs)"
say "call: $(call)"
say "metrics: $(curl -fsS http://127.0.0.1:15020/metrics | grep -E '^culvert_capture_events_total.*event="direct(_passed)?"' | xargs)"
grep -E "warn|error" "$work/log" | cut -f 2- | sed 's/^/log: /' || true
kill -9 "$node"
wait "$node" 2>/dev/null || true
say "without a proxy: $(call)"
"$culvert" uninstall --node-name guest --run-dir "$work/run" 2>&1 | sed 's/^/uninstall: /'
say "without a mesh: $(call)"
for name in shop client; do
    seen "$name" >"$work/$name.after"
    if diff "$work/$name.before" "$work/$name.after"; then say "$name: as before"; fi
done
kill "$server"
