internal import CBPF
internal import Glibc

/// What the kernel was built with and says it can do.
enum KernelChecks {
    static func all(_ context: PreflightContext) -> [PreflightReport.Check] {
        var checks = [configuration(context)]
        checks += features(context)
        let types = Probe(.kernel, "btf", "kernel type information")
        checks.append(
            Files.inode("/sys/kernel/btf/vmlinux") != nil
                ? types.ok("/sys/kernel/btf/vmlinux")
                : types.found(.ok, "absent; the programs do without (CONFIG_DEBUG_INFO_BTF)"))
        let ipv6 = Probe(.kernel, "ipv6", "IPv6")
        checks.append(
            Files.inode("/proc/sys/net/ipv6") != nil
                ? ipv6.ok("present")
                : ipv6.found(
                    .warn, "absent", cost: "only IPv4 workloads are captured", remedy: "boot without ipv6.disable=1"))
        return checks
    }

    /// Options that matter, and what for. Missing ones are explained, not judged: the probes below decide.
    static let options: [(name: String, purpose: String)] = [
        ("BPF_SYSCALL", "all eBPF (L0 to L2)"), ("CGROUP_BPF", "connect hooks (L0 to L2)"),
        ("SOCK_CGROUP_DATA", "knowing a socket's cgroup (L0 to L2)"), ("INET", "sk_lookup (L0, L1)"),
        ("NET_NS", "workloads' namespaces"), ("IP_MULTIPLE_TABLES", "policy routing (L0, L1)"),
        ("IPV6_MULTIPLE_TABLES", "policy routing of IPv6 (L0, L1)"), ("INET_DIAG", "listing sockets (T1)"),
        ("INET_DIAG_DESTROY", "revoking a direct flow (T1)"), ("NF_TABLES", "nft (L2, L3)"),
        ("NF_TABLES_INET", "nft (L2, L3)"), ("NFT_NAT", "nft address translation (L2, L3)"),
        ("NFT_CT", "nft connection state (L2, L3)"), ("NF_CONNTRACK", "original destinations (L2, L3)"),
    ]

    private static func configuration(_ context: PreflightContext) -> PreflightReport.Check {
        let probe = Probe(.kernel, "config", "configuration")
        switch KernelConfiguration.read(release: context.machine.kernel) {
        case .failure(let absence):
            return probe.found(
                .ok, "not readable (\(absence.looked.joined(separator: ", "))); the probes below do without it")
        case .success(let configuration):
            let missing = options.filter { !configuration.has($0.name) }
            let listed = missing.map { "CONFIG_\($0.name): \($0.purpose)" }.joined(separator: "; ")
            return missing.isEmpty
                ? probe.ok("\(configuration.path): all \(options.count) options that matter are set")
                : probe.found(
                    .warn, "\(configuration.path): not set: \(listed)",
                    remedy: "the checks below tell what that costs here")
        }
    }

    /// libbpf's feature probes: the kernel is asked, one trivial program or map at a time.
    private static func features(_ context: PreflightContext) -> [PreflightReport.Check] {
        typealias Feature = (probe: Probe, ask: () -> Int32, version: String, options: String)
        let steering: [PreflightReport.Use] = [.l0, .l1]
        let hooks: [PreflightReport.Use] = [.l0, .l1, .l2]
        let features: [Feature] = [
            (
                Probe(.kernel, "bpf.connect", "connect hook type", hooks),
                { libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, nil) }, "4.17", "CONFIG_CGROUP_BPF"
            ),
            (
                Probe(.kernel, "bpf.cookie", "namespace cookie in connect hooks", hooks),
                { libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_get_netns_cookie, nil) }, "5.7",
                "CONFIG_CGROUP_BPF"
            ),
            (
                Probe(.kernel, "bpf.lookup", "socket lookup type", steering),
                { libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_LOOKUP, nil) }, "5.9", "CONFIG_BPF_SYSCALL, CONFIG_INET"
            ),
            (
                Probe(.kernel, "bpf.sockmap", "socket maps", steering + [.t2]),
                { libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKMAP, nil) }, "5.13",
                "CONFIG_BPF_SYSCALL (before 5.13 CONFIG_BPF_STREAM_PARSER)"
            ),
            (
                Probe(.kernel, "bpf.sockops", "socket event type", hooks),
                { libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SOCK_OPS, nil) }, "4.13", "CONFIG_CGROUP_BPF"
            ),
            (
                Probe(.kernel, "bpf.sockops.cookie", "namespace cookie in socket events", [.t2]),
                { libbpf_probe_bpf_helper(BPF_PROG_TYPE_SOCK_OPS, BPF_FUNC_get_netns_cookie, nil) }, "5.15",
                "CONFIG_CGROUP_BPF"
            ),
            (
                Probe(.kernel, "bpf.message", "socket message type", [.t2]),
                { libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_MSG, nil) }, "4.17",
                "CONFIG_BPF_SYSCALL (before 5.13 CONFIG_BPF_STREAM_PARSER)"
            ),
            (
                Probe(.kernel, "bpf.sockhash", "socket hashes", [.t2]),
                { libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKHASH, nil) }, "4.18",
                "CONFIG_BPF_SYSCALL (before 5.13 CONFIG_BPF_STREAM_PARSER)"
            ),
        ]
        let lacking = context.lacking([.bpf, .netAdmin])
        guard lacking.isEmpty else { return features.map { $0.probe.untried(context, lacking: lacking) } }
        var checks = features.map { feature in
            switch feature.ask() {
            case 1: feature.probe.ok("present")
            case 0:
                feature.probe.found(
                    .fail, "absent or refused",
                    remedy: Remedy.option(feature.options, since: feature.version, context.distribution))
            case let code: feature.probe.found(.unknown, errorText(code))
            }
        }
        let refusals = Probe(.kernel, "bpf.retval", "refusals as ECONNREFUSED")
        checks.append(
            libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_set_retval, nil) == 1
                ? refusals.ok("present")
                : refusals.found(
                    .warn, "absent", cost: "an application whose connect is refused sees EPERM",
                    remedy: Remedy.newerKernel("5.18", context.distribution)))
        return checks
    }
}

/// The kernel's build options, from where distributions keep them.
struct KernelConfiguration {
    let path: String
    private let set: Set<Substring>

    struct Absence: Error {
        /// `/proc/config.gz: No such file or directory (ENOENT)`
        let looked: [String]
    }

    static func read(release: String) -> Result<KernelConfiguration, Absence> {
        let places = [
            "/proc/config.gz", "/boot/config-\(release)", "/lib/modules/\(release)/config",
            "/usr/lib/modules/\(release)/config",
        ]
        var looked: [String] = []
        for path in places {
            switch content(path) {
            case .success(let text): return .success(KernelConfiguration(path: path, text: text))
            case .failure(let error): looked.append("\(path): \(errorText(error.code))")
            }
        }
        return .failure(Absence(looked: looked))
    }

    init(path: String, text: String) {
        self.path = path
        set = Set(
            text.split(separator: "\n").compactMap { line in
                line.hasPrefix("CONFIG_") && (line.hasSuffix("=y") || line.hasSuffix("=m"))
                    ? line.dropFirst("CONFIG_".count).dropLast(2) : nil
            })
    }

    /// Built in or as a module.
    func has(_ option: String) -> Bool { set.contains(option[...]) }

    /// zlib, which libbpf is linked with anyway, reads plain files as well.
    private static func content(_ path: String) -> Result<String, SmallError> {
        let raw = open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { return .failure(SmallError(code: -errno)) }
        guard let file = gzdopen(raw, "r") else {
            close(raw)
            return .failure(SmallError(code: -ENOMEM))
        }
        defer { gzclose(file) }
        // What is there but tells nothing (an empty file bound over it) is as good as absent.
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while case let count = gzread(file, &chunk, UInt32(chunk.count)), count != 0 {
            guard count > 0 else { return .failure(SmallError(code: -EIO)) }
            bytes += chunk.prefix(Int(count))
        }
        return bytes.isEmpty ? .failure(SmallError(code: -ENODATA)) : .success(String(decoding: bytes, as: UTF8.self))
    }
}
