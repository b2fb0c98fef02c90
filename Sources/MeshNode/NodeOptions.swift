public import MeshKernel
public import MeshTelemetry

/// What a node proxy is started with.
public struct NodeOptions: Sendable {
    /// Which `Workload.node` is ours.
    public var nodeName: String
    /// A YAML file or a folder of them.
    public var configuration: String
    /// Data cores: one thread each.
    public var cores: Int
    /// Where the connect hooks attach; nil: the root of the cgroup2 hierarchy.
    public var cgroup: String?
    /// The kubelet's cgroup, whose health probes pass by every policy; nil: where it usually is.
    public var kubeletCgroup: String?
    public var bpffs: String
    /// Lock and identity socket.
    public var runDirectory: String
    /// The embedded CA's files when the Mesh object names none.
    public var stateDirectory: String
    public var adminPort: Int
    public var metricsPort: Int
    public var readinessPort: Int
    public var logFormat: LogFormat
    /// nil: the best that works here.
    public var captureLevel: CaptureLevel?
    /// Takes over from a running node proxy of the same name, without a refused connection.
    public var takesOver: Bool
    /// How long it may take to serve then what the running one serves; what that one waits is twice as long as its own.
    public var takeoverLimit = Duration.seconds(30)

    public init(
        nodeName: String, configuration: String, cores: Int, cgroup: String? = nil, bpffs: String = "/sys/fs/bpf",
        runDirectory: String = "/run/culvert", stateDirectory: String = "/var/lib/culvert", adminPort: Int = 15000,
        metricsPort: Int = 15020, readinessPort: Int = 15021, logFormat: LogFormat = .text, takesOver: Bool = false
    ) {
        self.nodeName = nodeName
        self.configuration = configuration
        self.cores = cores
        self.cgroup = cgroup
        self.bpffs = bpffs
        self.runDirectory = runDirectory
        self.stateDirectory = stateDirectory
        self.adminPort = adminPort
        self.metricsPort = metricsPort
        self.readinessPort = readinessPort
        self.logFormat = logFormat
        self.takesOver = takesOver
    }

    /// This release.
    public static let version = "0.1.0"

    /// Where local waypoints fetch their certificates.
    public var identitySocket: String { "\(runDirectory)/\(nodeName)/identity.sock" }

    /// Where a newer node proxy asks this one to hand over.
    public var handoverSocket: String { "\(runDirectory)/\(nodeName)/handover.sock" }
}
