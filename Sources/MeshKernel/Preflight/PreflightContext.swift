internal import CMeshSystem
internal import Glibc

/// What every check may depend on, found once.
struct PreflightContext {
    typealias Check = PreflightReport.Check

    let options: CaptureOptions
    let capabilities: Set<Capability>
    let isRoot: Bool
    let distribution: Distribution
    /// nil when uname(2) says nothing of the kind.
    let version: KernelVersion?
    let machine: PreflightReport.Machine

    init(_ options: CaptureOptions) {
        self.options = options
        capabilities = Capability.effective
        isRoot = geteuid() == 0
        var name = utsname()
        uname(&name)
        func text<Field>(_ field: Field) -> String {
            withUnsafeBytes(of: field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        }
        let release = text(name.release)
        let osRelease = OSRelease.read()
        distribution = .recognise(release: release, version: text(name.version), osRelease: osRelease)
        version = KernelVersion(
            release: release, version: text(name.version), signature: Files.read("/proc/version_signature").value ?? "")
        machine = PreflightReport.Machine(
            kernel: release, architecture: text(name.machine),
            distribution: osRelease.prettyName.isEmpty ? "an unnamed distribution" : osRelease.prettyName)
    }

    /// Capabilities of a list that the process lacks. CAP_SYS_ADMIN stands in for CAP_BPF, as in the kernel.
    func lacking(_ wanted: [Capability]) -> [Capability] {
        wanted.filter { capability in
            !capabilities.contains(capability) && !(capability == .bpf && capabilities.contains(.sysAdmin))
        }
    }

    /// How a probe says that it was not made.
    func untried(
        _ group: PreflightReport.Group, _ id: String, _ title: String, lacking: [Capability],
        neededBy: [PreflightReport.Use] = []
    ) -> Check {
        Check(
            group, id, title, .unknown, "not tried: it needs \(lacking.map(\.name).joined(separator: " and "))",
            remedy: isRoot ? "" : "run culvert preflight as root", neededBy: neededBy)
    }
}

/// A check to be made: what it is called and what depends on it, apart from what it finds.
struct Probe {
    let group: PreflightReport.Group
    let id: String
    let title: String
    let neededBy: [PreflightReport.Use]

    init(_ group: PreflightReport.Group, _ id: String, _ title: String, _ neededBy: [PreflightReport.Use] = []) {
        self.group = group
        self.id = id
        self.title = title
        self.neededBy = neededBy
    }

    func found(
        _ status: PreflightReport.Status, _ detail: String, cost: String = "", remedy: String = ""
    ) -> PreflightReport.Check {
        .init(group, id, title, status, detail, cost: cost, remedy: remedy, neededBy: neededBy)
    }

    func ok(_ detail: String) -> PreflightReport.Check { found(.ok, detail) }

    func untried(_ context: PreflightContext, lacking: [Capability]) -> PreflightReport.Check {
        context.untried(group, id, title, lacking: lacking, neededBy: neededBy)
    }
}
