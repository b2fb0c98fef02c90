/// What bounds the daemon.
enum LimitChecks {
    static func all(_ context: PreflightContext) -> [PreflightReport.Check] { [files(), memory(context)] }

    private static func files() -> PreflightReport.Check {
        let probe = Probe(.limits, "limit.files", "open files")
        guard let limit = hardLimit("Max open files") else { return probe.found(.unknown, "/proc/self/limits unread") }
        guard let number = UInt64(limit), number < 65536 else { return probe.ok("at most \(limit)") }
        return probe.found(
            .warn, "at most \(limit)", cost: "every carried connection needs two",
            remedy: "raise the hard limit to 65536 or more (systemd: LimitNOFILE=; shell: ulimit -Hn)")
    }

    private static func memory(_ context: PreflightContext) -> PreflightReport.Check {
        let probe = Probe(.limits, "limit.memlock", "locked memory")
        guard let limit = hardLimit("Max locked memory") else {
            return probe.found(.unknown, "/proc/self/limits unread")
        }
        let counts = context.version.map { $0 < KernelVersion(5, 11) } ?? false
        guard counts else { return probe.ok("at most \(limit); eBPF counts as memory of the cgroup on this kernel") }
        let enough = UInt64(limit).map { $0 >= 256 << 20 } ?? true
        guard !enough && !context.capabilities.contains(.sysResource) else { return probe.ok("at most \(limit)") }
        return probe.found(
            .warn, "at most \(limit), and eBPF maps count here", cost: "maps may be refused (EPERM)",
            remedy: "LimitMEMLOCK=infinity (container: grant CAP_SYS_RESOURCE)")
    }

    /// The hard column of /proc/self/limits: a number or `unlimited`.
    private static func hardLimit(_ name: String) -> String? {
        guard let text = Files.read("/proc/self/limits").value,
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) })
        else { return nil }
        let fields = line.dropFirst(name.count).split(separator: " ")
        return fields.count > 1 ? String(fields[1]) : nil
    }
}
