internal import CBPF
internal import Glibc

/// What this process may do, and who else has a say in it.
enum PrivilegeChecks {
    static func all(_ context: PreflightContext) -> [PreflightReport.Check] {
        Capability.allCases.map { capability(context, $0) } + [systemCall(context), lockdown(), selinux()]
            + settings(context)
    }

    private static func capability(_ context: PreflightContext, _ capability: Capability) -> PreflightReport.Check {
        let neededBy: [PreflightReport.Use] =
            !Capability.needed.contains(capability) ? [] : capability == .bpf ? [.l0, .l1, .l2] : [.l0, .l1, .l2, .l3]
        let probe = Probe(.privileges, "capability.\(capability.name)", capability.name, neededBy)
        if context.capabilities.contains(capability) { return probe.ok(capability.purpose) }
        if capability == .sysResource {
            let old = context.version.map { $0 < KernelVersion(5, 11) } ?? false
            return probe.found(
                old ? .warn : .ok, "absent: to \(capability.purpose)\(old ? "" : "; not needed on this kernel")",
                cost: old ? "programs and maps must fit the locked memory limit (below)" : "",
                remedy: old ? "grant CAP_SYS_RESOURCE" : "")
        }
        // An ordinary user lacking it says nothing about the machine; root lacking it does.
        let status: PreflightReport.Status = neededBy.isEmpty ? .warn : context.isRoot ? .fail : .unknown
        let remedy =
            context.isRoot
            ? "grant \(capability.name) (container: securityContext.capabilities.add; systemd: AmbientCapabilities=)"
            : "run culvert preflight as root"
        return probe.found(
            status, "absent: to \(capability.purpose)", cost: neededBy.isEmpty ? capability.loss : "", remedy: remedy)
    }

    /// A capability does not help where seccomp or a security module refuses bpf(2).
    private static func systemCall(_ context: PreflightContext) -> PreflightReport.Check {
        let probe = Probe(.privileges, "bpf.syscall", "the bpf system call", [.l0, .l1, .l2])
        let lacking = context.lacking([.bpf])
        guard lacking.isEmpty else { return probe.untried(context, lacking: lacking) }
        let map = bpf_map_create(BPF_MAP_TYPE_ARRAY, "culvert_probe", 4, 8, 1, nil)
        if map >= 0 {
            close(map)
            return probe.ok("a map can be made")
        }
        switch map {
        case -ENOSYS, -EINVAL:
            return probe.found(
                .fail, errorText(map),
                remedy: Remedy.option("CONFIG_BPF_SYSCALL", since: "5.9", context.distribution))
        default:
            let filtered = status("Seccomp") == "2" ? "; a seccomp filter is at work on this process" : ""
            return probe.found(
                .fail, "\(errorText(map)) in spite of the capability\(filtered)",
                remedy: Remedy.permitBPF(context.distribution))
        }
    }

    /// `none [integrity] confidentiality`
    private static func lockdown() -> PreflightReport.Check {
        let probe = Probe(.privileges, "lockdown", "kernel lockdown")
        guard let text = Files.read("/sys/kernel/security/lockdown").value else {
            return probe.found(.ok, "not readable (securityfs is not mounted, or the kernel has none)")
        }
        let mode = text.split(whereSeparator: { $0 == " " || $0 == "\n" }).first { $0.hasPrefix("[") } ?? "[unknown]"
        return probe.ok("\(mode.dropFirst().dropLast()); network programs are left alone in every mode")
    }

    private static func selinux() -> PreflightReport.Check {
        let probe = Probe(.privileges, "selinux", "SELinux")
        guard let enforce = Files.read("/sys/fs/selinux/enforce").value else { return probe.ok("off") }
        guard enforce.hasPrefix("1") else { return probe.ok("permissive") }
        let text = Files.read("/proc/self/attr/current").value ?? "an unknown context"
        let context = text.prefix { $0 != "\0" && $0 != "\n" }
        guard context.contains(":container_t:") else { return probe.ok("enforcing; this process is \(context)") }
        return probe.found(
            .warn, "enforcing; this process is \(context), which may not use bpf",
            cost: "what the checks below cannot do",
            remedy: "run it privileged or with seLinuxOptions.type spc_t")
    }

    private static func settings(_ context: PreflightContext) -> [PreflightReport.Check] {
        let unprivileged = Probe(.privileges, "sysctl.unprivileged_bpf", "unprivileged bpf")
        let harden = Probe(.privileges, "sysctl.bpf_jit_harden", "hardened JIT")
        let meaning = ["0": "allowed to every user", "1": "off until the next boot", "2": "off"]
        let disabled = setting("/proc/sys/kernel/unprivileged_bpf_disabled")
        let hardened = setting("/proc/sys/net/core/bpf_jit_harden")
        return [
            disabled == "0"
                ? unprivileged.found(
                    .warn, "every user may load eBPF programs",
                    cost: "nothing of culvert's; it widens the kernel's face",
                    remedy: "sysctl -w kernel.unprivileged_bpf_disabled=2 (and in /etc/sysctl.d)")
                : unprivileged.ok("\(disabled.flatMap { meaning[$0] } ?? "not readable"); no matter with CAP_BPF"),
            hardened == "2"
                ? harden.found(.ok, "2: constants of programs are blinded, also root's, which costs a little speed")
                : harden.ok(hardened.map { "\($0): programs run at full speed" } ?? "not readable"),
        ]
    }

    private static func setting(_ path: String) -> String? {
        Files.read(path).value.map { $0.filter { !$0.isWhitespace } }
    }

    /// A field of /proc/self/status.
    private static func status(_ name: String) -> String? {
        Files.read("/proc/self/status").value?.split(separator: "\n").first { $0.hasPrefix("\(name):") }
            .map { $0.dropFirst(name.count + 1).filter { !$0.isWhitespace } }
    }
}
