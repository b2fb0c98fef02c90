import Foundation
import MeshRuntime
import Synchronization

/// The addresses of a lab. They are the same in every lab: namespaces keep them apart.
struct AddressPlan {
    let node: Int

    var nodeV4: String { "172.31.0.\(node)" }
    var nodeV6: String { "fd31::\(String(node, radix: 16))" }
    var podsV4: String { "10.10.\(node).0/24" }
    var podsV6: String { "fd10:0:0:\(String(node, radix: 16))::/64" }

    func podV4(_ number: Int) -> String { "10.10.\(node).\(number)" }
    func podV6(_ number: Int) -> String { "fd10:0:0:\(String(node, radix: 16))::\(String(number, radix: 16))" }

    /// What every pod sees as its gateway: an address of the node's end of its own link.
    static let gatewayV4 = "169.254.1.1"
    static let gatewayV6 = "fe80::1"
}

extension Lab {
    func makeFolders() throws {
        let files = FileManager.default
        do {
            for path in [folder, "\(folder)/commands", bpffs] {
                try files.createDirectory(
                    atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
            }
            try LabOwner.current(lifetime: lifetime).write(to: folder)
            try Data(enterScript.utf8).write(to: URL(fileURLWithPath: enterPath))
        } catch {
            throw LabError(.setUp, "cannot make \(folder): \(error.localizedDescription)")
        }
        for node in nodes { try Cgroup(path: node.cgroup).create() }
        try Cgroup(path: wire.cgroup).create()
        if mount("bpf", bpffs, "bpf", 0, "mode=0700") != 0 {
            throw LabError(.setUp, "cannot mount a bpffs at \(bpffs): \(String(cString: strerror(errno)))")
        }
    }

    /// The nodes, and the bridge that joins them.
    func makeNodes() async throws {
        try await configure(in: nil, (nodes + [wire]).map { "netns add \(namespaceName($0))" })
        try setKernel(wire, ["ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"])
        for node in nodes { try setKernel(node, Self.quickAddresses.merging(Self.forwarding) { $1 }) }
        // A port of a bridge with a forward delay would be deaf for its first seconds, spanning tree or not.
        var lines = [
            "link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set bridge up",
        ]
        for node in nodes {
            lines += [
                "link add \(node.name) type veth peer name eth0 netns \(namespaceName(node))",
                "link set \(node.name) master bridge up",
            ]
        }
        try await configure(in: wire, lines)
        for node in nodes {
            var lines = [
                "link set lo up", "link set eth0 up", "addr add \(node.v4)/24 dev eth0",
                "addr add \(node.v6)/64 dev eth0 nodad",
            ]
            for other in nodes where other != node {
                let plan = AddressPlan(node: other.nodeNumber)
                lines.append("route add \(plan.podsV4) via \(other.v4)")
                lines.append("route add \(plan.podsV6) via \(other.v6)")
            }
            try await configure(in: node, lines)
        }
    }

    /// Makes a pod on a node: a namespace with `eth0`, an IPv4 and an IPv6 address, and a route to everything.
    /// - Parameter name: unique in the lab, at most 13 bytes (it names the node's end of the link, too).
    public func addPod(_ name: String, on node: LabHost) async throws -> LabHost {
        precondition(name.utf8.count <= 13 && node.nodeNumber > 0, "a pod has a short name and lives on a node")
        let pod = state.withLock { state in
            // Never used again, so that a late packet for a pod that is gone reaches nobody.
            let number = state.podNumbers[node.nodeNumber, default: 2]
            state.podNumbers[node.nodeNumber] = number + 1
            let plan = AddressPlan(node: node.nodeNumber)
            let pod = LabHost(
                name: name, namespacePath: "\(LabToken.namespaces)/\(token)-\(name)",
                cgroup: "\(node.cgroup)/pod-\(name)", v4: plan.podV4(number), v6: plan.podV6(number),
                nodeNumber: node.nodeNumber)
            state.pods.append(pod)
            return pod
        }
        try Cgroup(path: pod.cgroup).create()
        try await configure(in: nil, ["netns add \(namespaceName(pod))"])
        try setKernel(pod, Self.quickAddresses)
        // The link is made inside the node, so its name is free on the machine. `src` gives what the node itself sends
        // to the pod (as a kubelet does) the node's own address.
        try await configure(
            in: node,
            [
                "link add p-\(name) type veth peer name eth0 netns \(namespaceName(pod))", "link set p-\(name) up",
                "addr add \(AddressPlan.gatewayV4)/32 dev p-\(name) scope link",
                "addr add \(AddressPlan.gatewayV6)/64 dev p-\(name) nodad",
                "route add \(pod.v4)/32 dev p-\(name) src \(node.v4)",
                "route add \(pod.v6)/128 dev p-\(name) src \(node.v6)",
            ])
        try await configure(
            in: pod,
            [
                "link set lo up", "link set eth0 up", "addr add \(pod.v4)/32 dev eth0",
                "addr add \(pod.v6)/128 dev eth0 nodad",
                "route add \(AddressPlan.gatewayV4) dev eth0 scope link",
                "route add default via \(AddressPlan.gatewayV4) dev eth0",
                "route add default via \(AddressPlan.gatewayV6) dev eth0",
            ])
        return pod
    }

    /// Takes a pod away: its processes, its namespace (its links go with it) and its cgroup.
    public func removePod(_ pod: LabHost) async throws {
        state.withLock { $0.pods.removeAll { $0 == pod } }
        let processes = processes
        _ = Cgroup(path: pod.cgroup).remove { for process in processes { _ = process.status } }
        if let node = nodes.first(where: { $0.nodeNumber == pod.nodeNumber }) {
            // The kernel takes down a namespace in its own time; the name of the link is free at once this way.
            try await configure(in: node, ["link del p-\(pod.name)"])
        }
        Remains.removeNamespace(pod.namespacePath)
    }

    /// The words before a command that run it on a host as a workload would, for people: in its network namespace and
    /// in its cgroup, without which a connect hook would not see it.
    public func shellPrefix(_ host: LabHost) -> String { "sh \(enterPath) \(host.name)" }

    private var enterPath: String { "\(folder)/in" }

    private var enterScript: String {
        """
        # sh \(enterPath) HOST COMMAND...: runs a command on a node or in a pod of this lab.
        host=$1
        shift
        for group in "\(cgroup)/$host" "\(cgroup)"/*/"pod-$host"; do [ -d "$group" ] && break; done
        echo $$ >"$group/cgroup.procs" && exec nsenter --net="\(LabToken.namespaces)/\(token)-$host" "$@"

        """
    }

    func namespaceName(_ host: LabHost) -> String { "\(token)-\(host.name)" }

    /// IPv6 addresses are usable at once, and replies may take another way than requests came.
    private static let quickAddresses = [
        "ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0", "ipv6/conf/all/accept_ra": "0",
        "ipv6/conf/default/accept_ra": "0", "ipv6/conf/all/disable_ipv6": "0", "ipv6/conf/default/disable_ipv6": "0",
        "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
    ]
    private static let forwarding = ["ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"]

    /// Writes sysctls of a namespace: `/proc/sys/net` is the calling thread's.
    private func setKernel(_ host: LabHost, _ settings: [String: String]) throws {
        var failure: String?
        do {
            try NetworkNamespace(path: host.namespacePath).run { () throws(SystemError) in
                for (name, value) in settings.sorted(by: { $0.key < $1.key }) {
                    do {
                        try value.write(toFile: "/proc/sys/net/\(name)", atomically: false, encoding: .utf8)
                    } catch {
                        failure = "cannot set net/\(name) in \(host.name): \(error.localizedDescription)"
                    }
                }
            }
        } catch {
            throw LabError(.setUp, "cannot enter \(host.namespacePath): \(error)")
        }
        if let failure { throw LabError(.setUp, failure) }
    }

    /// Runs ip(8) once over many lines.
    private func configure(in host: LabHost?, _ lines: [String]) async throws {
        let file = "\(folder)/commands/ip-\(host?.name ?? "all")-\(UInt32.random(in: 0 ... .max))"
        try Data(lines.joined(separator: "\n").utf8).write(to: URL(fileURLWithPath: file))
        defer { unlink(file) }
        let place = host.map { ["-n", namespaceName($0)] } ?? []
        let result = try await run(Launch("ip", place + ["-batch", file]))
        guard result.isSuccess else {
            throw LabError(
                .setUp,
                "ip refused to set up \(host?.name ?? "namespaces"): \(result.errors)"
                    + lines.enumerated().map { "\n  \($0 + 1): \($1)" }.joined())
        }
    }
}
