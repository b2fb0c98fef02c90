/// Finds out whether capture works here, by probing and trying, never from a version number alone. Changes nothing: what
/// it makes (a cgroup, network namespaces, programs, sockets) is gone when it returns; the kernel may load modules of its
/// own that a probe asks for (nf_tables, tls). Runs unprivileged as well, and then says what it could not find out.
///
/// The order is from what only informs to what proves: configuration, feature probes, a trial load of our own programs,
/// a trial attach, real connections in a scratch namespace, and behaviour that no version number tells.
public enum Preflight {
    /// What this version of the node has.
    public static let offered = PreflightReport.Use.allCases

    public static func run(_ options: CaptureOptions) -> PreflightReport {
        let context = PreflightContext(options)
        var checks = KernelChecks.all(context)
        checks += PrivilegeChecks.all(context)
        checks += PlaceChecks.all(context)
        checks += ProgramChecks.all(context)
        checks += BehaviourChecks.all(context)
        checks += ConflictChecks.all(context)
        checks += LimitChecks.all(context)
        return PreflightReport(machine: context.machine, offered: offered, checks: checks)
    }

    /// Refuses places that were named and are wrong: an operator's slip, not a fact about the machine.
    public static func validate(_ options: CaptureOptions) throws(KernelError) {
        if options.cgroupPath != nil { _ = try CgroupMount.attachPoint(options) }
    }
}
