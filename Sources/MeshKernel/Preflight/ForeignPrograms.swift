internal import CBPF
internal import CMeshSystem
internal import Glibc

/// Programs of others on the hooks of capture, by name.
enum ForeignPrograms {
    private struct Hooks {
        let probe: Probe
        let types: [(type: bpf_attach_type, name: String)]
        /// What a program there can do to capture.
        let cost: String
    }

    private static let hooks = [
        Hooks(
            probe: Probe(.conflicts, "conflict.connect", "other connect programs"),
            types: [(BPF_CGROUP_INET4_CONNECT, "connect4"), (BPF_CGROUP_INET6_CONNECT, "connect6")],
            cost: "one that translates service addresses before ours hides the service; one that refuses wins"),
        Hooks(
            probe: Probe(.conflicts, "conflict.datagram", "other datagram programs"),
            types: [
                (BPF_CGROUP_UDP4_SENDMSG, "sendmsg4"), (BPF_CGROUP_UDP6_SENDMSG, "sendmsg6"),
                (BPF_CGROUP_UDP4_RECVMSG, "recvmsg4"), (BPF_CGROUP_UDP6_RECVMSG, "recvmsg6"),
            ], cost: "one that translates the address of the DNS service may keep questions from the mesh's DNS"),
        Hooks(
            probe: Probe(.conflicts, "conflict.name", "other name programs"),
            types: [
                (BPF_CGROUP_INET4_GETPEERNAME, "getpeername4"), (BPF_CGROUP_INET6_GETPEERNAME, "getpeername6"),
                (BPF_CGROUP_INET4_GETSOCKNAME, "getsockname4"), (BPF_CGROUP_INET6_GETSOCKNAME, "getsockname6"),
            ], cost: "applications may be told other addresses than those of their connection"),
        Hooks(
            probe: Probe(.conflicts, "conflict.sockops", "other socket event programs"),
            types: [(BPF_CGROUP_SOCK_OPS, "sock_ops")],
            cost: "one that puts sockets into a sockmap takes them from T2 and may stall their readers"),
    ]
    private static let lookup = Probe(.conflicts, "conflict.lookup", "other lookup programs")

    /// Whose programs are known by their names, and what to do about each.
    private static let owners: [(prefixes: [String], name: String, remedy: String)] = [
        (
            ["cil_sock", "sock4_", "sock6_"], "Cilium's socket load balancer",
            "Helm value socketLB.hostNamespaceOnly=true (bpf-lb-sock-hostns-only), then restart the Cilium agents: pods' "
                + "connections keep their service address, also with kubeProxyReplacement"
        ),
        (
            ["calico_", "cali_"], "Calico's connect-time load balancer",
            "FelixConfiguration: bpfConnectTimeLoadBalancing: Disabled, bpfHostNetworkedNATWithoutCTLB: Enabled"
        ),
        (["cgroup_connect", "sockops_prog"], "Kmesh", "run one mesh per workload: take these pods out of Kmesh"),
        (["mb_"], "Merbridge", "uninstall Merbridge: it accelerates sidecars that culvert does without"),
    ]

    /// A program on a hook of a cgroup.
    private struct Found: Hashable {
        let program: String
        let hook: String
        let cgroup: String
        let order: String
    }

    static func checks(_ context: PreflightContext) -> [PreflightReport.Check] {
        let lacking = context.lacking([.netAdmin, .bpf])
        guard lacking.isEmpty else {
            return (hooks.map(\.probe) + [lookup]).map { $0.untried(context, lacking: lacking) }
        }
        guard let attachPoint = try? CgroupMount.attachPoint(context.options) else {
            return hooks.map { $0.probe.found(.unknown, "not looked for: there is no cgroup2") } + [lookups()]
        }
        let below = cgroups(below: attachPoint)
        return hooks.map { check($0, attachPoint, below) } + [lookups()]
    }

    private static func check(_ hooks: Hooks, _ attachPoint: String, _ below: [String]) -> PreflightReport.Check {
        var found: [Found] = []
        for (type, hook) in hooks.types {
            switch effective(attachPoint, type) {
            case .failure(let error):
                // A hook that the kernel does not know has no program.
                if error.code == -EINVAL { continue }
                return hooks.probe.found(.unknown, "\(attachPoint): \(errorText(error.code))")
            case .success(let programs):
                found += programs.map { Found(program: $0.name, hook: hook, cgroup: attachPoint, order: $0.order) }
            }
            for path in below {
                let names = programs(at: path, type, flags: 0).value ?? []
                found += names.filter(isForeign).map {
                    Found(program: $0, hook: hook, cgroup: path, order: "before ours")
                }
            }
        }
        guard !found.isEmpty else {
            return hooks.probe.ok("none at \(attachPoint), above it or in \(below.count) cgroups below")
        }
        return report(hooks.probe, found, hooks.cost)
    }

    private static func report(_ probe: Probe, _ found: [Found], _ cost: String) -> PreflightReport.Check {
        var lines: [String] = []
        for program in found {
            let hooks = found.filter {
                $0.program == program.program && $0.cgroup == program.cgroup && $0.order == program.order
            }
            let line =
                "\(named(program.program)) on \(hooks.map(\.hook).joined(separator: ", ")) of \(program.cgroup), "
                + "runs \(program.order)"
            if !lines.contains(line) { lines.append(line) }
        }
        let remedies = owners.filter { owner in found.contains { isOf(owner.prefixes, $0.program) } }.map(\.remedy)
        return probe.found(
            .warn, lines.prefix(6).joined(separator: "; ") + (lines.count > 6 ? "; and \(lines.count - 6) more" : ""),
            cost: cost,
            remedy: remedies.isEmpty
                ? "find its owner (bpftool cgroup tree) and keep it from pods' connections, if it changes or refuses them"
                : remedies.joined(separator: "; "))
    }

    private static func named(_ program: String) -> String {
        let owner = owners.first { isOf($0.prefixes, program) }
        return owner.map { "\(program) (\($0.name))" } ?? program
    }

    private static func isOf(_ prefixes: [String], _ program: String) -> Bool {
        prefixes.contains { program.hasPrefix($0) }
    }

    private static func isForeign(_ name: String) -> Bool { !name.hasPrefix("culvert_") }

    /// The foreign programs that run for processes at a cgroup, in order: its own first, then those of its ancestors.
    private static func effective(
        _ path: String, _ type: bpf_attach_type
    ) -> Result<[(name: String, order: String)], SmallError> {
        switch programs(at: path, type, flags: UInt32(BPF_F_QUERY_EFFECTIVE)) {
        case .failure(let error): return .failure(error)
        case .success(let names):
            let own = programs(at: path, type, flags: 0).value ?? []
            // Where ours is not attached yet it will come after those that are at this cgroup now.
            let ours = names.firstIndex { !isForeign($0) } ?? own.count
            return .success(
                names.enumerated().filter { isForeign($0.element) }.map { index, name in
                    (name, index < ours ? "before ours" : "after ours")
                })
        }
    }

    /// Names, or `program 17` where names may not be asked for.
    private static func programs(
        at path: String, _ type: bpf_attach_type, flags: UInt32
    ) -> Result<[String], SmallError> {
        let raw = mesh_open(path)
        guard raw >= 0 else { return .failure(SmallError(code: raw)) }
        let cgroup = Descriptor(adopting: raw)
        return query(cgroup, type, flags: flags)
    }

    private static func query(
        _ target: Descriptor, _ type: bpf_attach_type, flags: UInt32
    ) -> Result<[String], SmallError> {
        var ids = [UInt32](repeating: 0, count: 64)
        var count = UInt32(ids.count)
        let code = bpf_prog_query(target.raw, type, flags, nil, &ids, &count)
        // ENOSPC: there are more than we asked room for; the first are enough to name.
        guard code == 0 || code == -ENOSPC else { return .failure(SmallError(code: code)) }
        return .success(ids.prefix(Int(min(count, 64))).map { BPFLink.programName($0) ?? "program \($0)" })
    }

    /// In every network namespace: a lookup program sees the SYNs of one alone.
    private static func lookups() -> PreflightReport.Check {
        var found: [String] = []
        let spaces = ConflictChecks.namespaces()
        for (inode, path) in spaces {
            let raw = mesh_open(path)
            // A process that ended in between takes its namespace along.
            guard raw >= 0 else { continue }
            let space = Descriptor(adopting: raw)
            // Nor is every file of /run/netns one: an unmounted name is a plain file.
            guard mesh_is_network_namespace(space.raw) == 1 else { continue }
            switch query(space, BPF_SK_LOOKUP, flags: 0) {
            case .failure(let error):
                return error.code == -EINVAL
                    ? lookup.ok("none: the kernel has no such hook")
                    : lookup.found(.unknown, "\(path): \(errorText(error.code))")
            case .success(let names):
                found += names.filter(isForeign).map { "\($0) in net:[\(inode)] (\(path))" }
            }
        }
        guard !found.isEmpty else { return lookup.ok("none in \(spaces.count) network namespaces") }
        return lookup.found(
            .warn, found.prefix(4).joined(separator: "; ") + (found.count > 4 ? "; and \(found.count - 4) more" : ""),
            cost: "where one steers a workload's connections, they may miss the mesh",
            remedy: "find its owner (bpftool link) and keep it out of pods' namespaces")
    }

    private static let mostCgroups = 4096

    /// The cgroups below one, breadth first, as many as are worth the time.
    private static func cgroups(below root: String) -> [String] {
        var found: [String] = []
        var next = 0
        var directories = [root]
        while next < directories.count && found.count < mostCgroups {
            let children = Files.directories(in: directories[next])
            found += children
            directories += children
            next += 1
        }
        return found
    }
}
