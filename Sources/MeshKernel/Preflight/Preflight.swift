internal import CBPF
internal import Glibc

/// Finds out whether capture works here, by probing and trying, never from a version number. Changes nothing: what it
/// makes (a cgroup, a network namespace, programs) is gone when it returns. Runs unprivileged as well, and then says what
/// it could not find out.
public enum Preflight {
    public static func run(_ options: CaptureOptions) -> PreflightReport {
        var checks = [kernel()]
        checks += capabilities()
        checks += places(options)
        let privileged = Capability.needed.allSatisfy(Capability.effective.contains)
        checks += programs(privileged)
        checks.append(hooks(options, privileged))
        checks.append(contentsOf: MarkLoopProbe.checks(privileged))
        checks.append(conflicts(options))
        checks += limits()
        return PreflightReport(checks: checks)
    }

    /// How a privileged probe reports that it was not made.
    static func untried(_ id: String, _ title: String) -> PreflightReport.Check {
        .init(id, title, .unknown, "not tried: it needs privilege", remedy: "run culvert preflight as root")
    }

    private static func kernel() -> PreflightReport.Check {
        var name = utsname()
        uname(&name)
        let release = withUnsafeBytes(of: name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let machine = withUnsafeBytes(of: name.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        return .init("kernel", "kernel", .ok, "Linux \(release) \(machine)", required: false)
    }

    private static func capabilities() -> [PreflightReport.Check] {
        let effective = Capability.effective
        return Capability.allCases.map { capability in
            let id = "capability.\(capability.name)"
            let needed = Capability.needed.contains(capability)
            if effective.contains(capability) {
                return .init(id, capability.name, .ok, capability.purpose, required: needed)
            }
            // An ordinary user lacking it says nothing about the machine; root lacking it does.
            let status: PreflightReport.Status = !needed ? .warn : geteuid() == 0 ? .fail : .unknown
            let remedy =
                geteuid() == 0
                ? "grant \(capability.name) (container: securityContext.capabilities.add)"
                : "run culvert preflight as root"
            return .init(
                id, capability.name, status, "missing: \(capability.purpose)", remedy: remedy, required: needed)
        }
    }

    private static func places(_ options: CaptureOptions) -> [PreflightReport.Check] {
        var checks: [PreflightReport.Check] = []
        do throws(KernelError) {
            let path = try CgroupMount.attachPoint(options)
            checks.append(.init("cgroup2", "cgroup2", .ok, "\(path) (\(CgroupMount.layout.rawValue))"))
            if let mount = CgroupMount.holding(path), mount.root != "/" {
                checks.append(
                    .init(
                        "cgroup.namespace", "cgroup namespace", .warn,
                        "\(mount.path) shows only the cgroup \(mount.root): hooks would see no other process",
                        remedy: "mount the host's cgroup2 into the container", required: false))
            }
        } catch {
            checks.append(.init("cgroup2", "cgroup2", .fail, "\(error.place): \(error.cause)", remedy: error.remedy))
        }
        do throws(KernelError) {
            try Pins.requireBPFFS(at: options.bpffsPath)
            checks.append(.init("bpffs", "bpf file system", .ok, options.bpffsPath))
        } catch {
            checks.append(
                .init("bpffs", "bpf file system", .fail, "\(error.place): \(error.cause)", remedy: error.remedy))
        }
        let hasBTF = Files.inode("/sys/kernel/btf/vmlinux") != nil
        checks.append(
            .init(
                "btf", "kernel type information", hasBTF ? .ok : .warn,
                hasBTF ? "/sys/kernel/btf/vmlinux" : "absent; today's programs do without",
                remedy: hasBTF ? "" : "use a kernel with CONFIG_DEBUG_INFO_BTF", required: false))
        let hasIPv6 = Files.inode("/proc/sys/net/ipv6") != nil
        checks.append(
            .init(
                "ipv6", "IPv6", hasIPv6 ? .ok : .warn, hasIPv6 ? "present" : "absent: only IPv4 workloads are captured",
                remedy: hasIPv6 ? "" : "boot without ipv6.disable=1", required: false))
        return checks
    }

    private static func limits() -> [PreflightReport.Check] {
        let files = hardLimit("Max open files")
        let enough = files.flatMap(UInt64.init).map { $0 >= 65536 } ?? true
        return [
            .init(
                "limit.files", "open files", enough ? .ok : .warn, "at most \(files ?? "unknown")",
                remedy: enough ? "" : "raise the hard limit to 65536 or more (LimitNOFILE=, ulimit -Hn)",
                required: false),
            .init(
                "limit.memlock", "locked memory", .ok,
                "at most \(hardLimit("Max locked memory") ?? "unknown"); counts for eBPF before Linux 5.11 only",
                required: false),
        ]
    }

    /// The hard column of /proc/self/limits: a number or `unlimited`.
    private static func hardLimit(_ name: String) -> String? {
        guard let text = Files.read("/proc/self/limits").value,
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) })
        else { return nil }
        let fields = line.dropFirst(name.count).split(separator: " ")
        return fields.count > 1 ? String(fields[1]) : nil
    }

    /// Other programs on the connect hooks: one that rewrites destinations before ours hides the service's address.
    private static func conflicts(_ options: CaptureOptions) -> PreflightReport.Check {
        let id = "conflicts"
        let title = "other connect programs"
        guard let path = try? CgroupMount.attachPoint(options) else {
            return .init(id, title, .unknown, "no cgroup to look at", required: false)
        }
        let raw = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard raw >= 0 else {
            return .init(id, title, .unknown, "\(path): \(errorText(errno))", required: false)
        }
        let cgroup = Descriptor(adopting: raw)
        var names: Set<String> = []
        for type in [BPF_CGROUP_INET4_CONNECT, BPF_CGROUP_INET6_CONNECT] {
            switch BPFLink.programs(at: cgroup.raw, type: type) {
            case .failure(let error):
                return .init(
                    id, title, .unknown, "\(path): \(errorText(error.code))", remedy: "run culvert preflight as root",
                    required: false)
            case .success(let ids):
                for id in ids { names.insert(BPFLink.programName(id) ?? "program \(id)") }
            }
        }
        let others = names.filter { !$0.hasPrefix("culvert_") }.sorted()
        if others.isEmpty { return .init(id, title, .ok, "none on \(path)", required: false) }
        return .init(
            id, title, .warn, "on \(path): \(others.joined(separator: ", "))",
            remedy: "if one translates service addresses (socket load balancing), limit it to the host's namespace",
            required: false)
    }
}
