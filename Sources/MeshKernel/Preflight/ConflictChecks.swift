internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc

/// Who else is at work where capture works: programs on the same hooks, rules on the same marks, habits of CNIs.
enum ConflictChecks {
    static func all(_ context: PreflightContext) -> [PreflightReport.Check] {
        ForeignPrograms.checks(context) + [rules(context), reversePath(), tagging(context), network()]
    }

    /// Rules of any namespace here that would take marked packets before ours, or that use our table or priority.
    private static func rules(_ context: PreflightContext) -> PreflightReport.Check {
        let probe = Probe(.conflicts, "conflict.rules", "rules on our marks")
        let lacking = context.lacking([.sysAdmin])
        guard lacking.isEmpty else { return probe.untried(context, lacking: lacking) }
        let spaces = namespaces()
        var found: [String] = []
        for (inode, path) in spaces {
            let raw = mesh_open(path)
            guard raw >= 0 else { continue }
            let space = Descriptor(adopting: raw)
            let clashes = try? inNamespace(space.raw, place: path) { () throws(KernelError) in
                [true, false].flatMap { clashing(ipv4: $0) }
            }
            for clash in clashes ?? [] { found.append("\(clash) in net:[\(inode)] (\(path))") }
        }
        guard !found.isEmpty else { return probe.ok("none in \(spaces.count) network namespaces") }
        return probe.found(
            .warn, found.prefix(4).joined(separator: "; ") + (found.count > 4 ? "; and \(found.count - 4) more" : ""),
            cost: "in such a namespace captured connections may take another route",
            remedy: "give those rules other marks, tables and priorities than "
                + "\(hex(CULVERT_MARK_MATCH))/\(hex(CULVERT_MARK_MASK)) and \(CULVERT_ROUTE_TABLE)")
    }

    /// The namespaces of all processes (as far as CAP_SYS_PTRACE goes), the own one first; each once.
    static func namespaces() -> [(inode: UInt64, path: String)] {
        var seen: Set<UInt64> = []
        let paths =
            ["/proc/self/ns/net"] + Files.names(in: "/run/netns").map { "/run/netns/\($0)" }
            + Files.names(in: "/proc").filter { $0.allSatisfy(\.isNumber) }.map { "/proc/\($0)/ns/net" }
        return paths.compactMap { path in
            guard let inode = Files.inode(path), seen.insert(inode).inserted else { return nil }
            return (inode, path)
        }
    }

    private static func clashing(ipv4: Bool) -> [String] {
        var rules = [mesh_rule_seen](repeating: mesh_rule_seen(), count: 256)
        let count = mesh_rules_read(ipv4, &rules, rules.count)
        return rules.prefix(Int(max(0, count))).filter(clashes).map { rule in
            "\(ipv4 ? "IPv4" : "IPv6") rule \(rule.priority): fwmark \(hex(rule.mark))/\(hex(rule.mask)) table \(rule.table)"
        }
    }

    /// Ours itself is none. Others: on our table or priority, or, earlier, taking one of our marks.
    static func clashes(_ rule: mesh_rule_seen) -> Bool {
        let ours =
            rule.mark == CULVERT_MARK_MATCH && rule.mask == CULVERT_MARK_MASK && rule.table == CULVERT_ROUTE_TABLE
        if ours { return false }
        if rule.table == CULVERT_ROUTE_TABLE || rule.priority == CULVERT_RULE_PRIORITY { return true }
        return rule.mask != 0 && rule.priority < CULVERT_RULE_PRIORITY
            && [CULVERT_MARK_CAPTURED, CULVERT_MARK_UPSTREAM].contains { $0 & rule.mask == rule.mark }
    }

    private static func hex(_ number: UInt32) -> String { "0x\(String(number, radix: 16))" }

    /// Strict filtering concerns what comes from outside. The capture loop is not touched by it: its packets keep their
    /// route.
    private static func reversePath() -> PreflightReport.Check {
        let probe = Probe(.conflicts, "rp_filter", "reverse path filter")
        let strict = Files.names(in: "/proc/sys/net/ipv4/conf").filter { name in
            Files.read("/proc/sys/net/ipv4/conf/\(name)/rp_filter").value?.hasPrefix("1") == true
        }
        guard !strict.isEmpty else { return probe.ok("not strict") }
        return probe.found(
            .warn, "strict on \(strict.prefix(6).joined(separator: ", "))\(strict.count > 6 ? ", …" : "")",
            cost:
                "where a node has several ways to a pod, packets between nodes may be dropped (capture itself is not hurt)",
            remedy: "sysctl -w net.ipv4.conf.all.rp_filter=2, where pods of other nodes cannot be reached")
    }

    /// Before 5.15 a socket tagged by net_cls or net_prio (version 1) counts as one of the root cgroup.
    private static func tagging(_ context: PreflightContext) -> PreflightReport.Check {
        let probe = Probe(.conflicts, "conflict.tagging", "net_cls, net_prio")
        let mounts = (Files.read("/proc/self/mountinfo").value ?? "").split(separator: "\n").filter { line in
            line.contains(" - cgroup ") && (line.contains("net_cls") || line.contains("net_prio"))
        }
        guard !mounts.isEmpty else { return probe.ok("not mounted") }
        let old = context.version.map { $0 < KernelVersion(5, 15) } ?? true
        guard old && context.options.cgroupPath != nil else {
            return probe.ok("mounted; no matter \(old ? "while hooks attach to the root" : "since Linux 5.15")")
        }
        return probe.found(
            .warn, "mounted; tagged sockets leave their cgroup on this kernel",
            cost: "connections of tagged processes escape hooks that are not at the root", remedy: "leave out --cgroup")
    }

    /// Interfaces tell the CNI; a few need to be told about capture.
    private static func network() -> PreflightReport.Check {
        let probe = Probe(.conflicts, "cni", "container network")
        let interfaces = Files.names(in: "/sys/class/net")
        if interfaces.contains("bpfin.cali") || interfaces.contains("bpfout.cali") {
            return probe.found(
                .warn, "Calico with its eBPF data plane",
                cost: "it may translate service addresses at connect, before culvert sees them",
                remedy: "FelixConfiguration: bpfConnectTimeLoadBalancing: Disabled, "
                    + "bpfHostNetworkedNATWithoutCTLB: Enabled")
        }
        let signs: [(String, String)] = [
            ("cilium_", "Cilium (its socket load balancer shows above where it is on)"), ("cali", "Calico"),
            ("flannel", "Flannel"), ("weave", "Weave"), ("antrea", "Antrea"), ("ovn-k8s", "OVN-Kubernetes"),
            ("kube-ipvs0", "kube-proxy with IPVS"), ("cni0", "a bridge plugin"),
        ]
        let found = signs.filter { sign in interfaces.contains { $0.hasPrefix(sign.0) } }.map(\.1)
        return probe.ok(found.isEmpty ? "none that is known by its interfaces" : found.joined(separator: ", "))
    }
}
