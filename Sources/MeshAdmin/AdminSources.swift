public import MeshModel
public import MeshTelemetry

/// Which daemon answers: shown to whoever asks.
public struct DaemonFacts: Encodable, Hashable, Sendable {
    public enum Kind: String, Encodable, Sendable {
        case node = "culvert-node"
        case waypoint = "culvert-waypoint"
    }

    public var kind: Kind
    /// The node's name, or the Gateway's as `NAMESPACE/NAME`.
    public var name: String
    public var version: String
    public var cores: Int
    /// `L0` to `L3`; nil where nothing is captured.
    public var captureLevel: String?

    /// Whether a node's kernel is fit for accelerated connections: `available`, or `unavailable: WHY`.
    public var acceleration: String?

    public init(
        kind: Kind, name: String, version: String, cores: Int, captureLevel: String? = nil, acceleration: String? = nil
    ) {
        self.kind = kind
        self.name = name
        self.version = version
        self.cores = cores
        self.captureLevel = captureLevel
        self.acceleration = acceleration
    }
}

/// The certificate a local workload presents. Never its key.
public struct AdminCertificate: Hashable, Sendable {
    public var identity: SPIFFEID
    /// `Available`, `Initializing` or `Unavailable: REASON`.
    public var state: String
    /// Leaf first, as PEM.
    public var chainPEM: [String]
    public var rootsPEM: [String]
    public var serialNumber: String
    /// Seconds since 1970.
    public var notBefore: Int64
    public var notAfter: Int64

    public init(
        identity: SPIFFEID, state: String, chainPEM: [String], rootsPEM: [String], serialNumber: String,
        notBefore: Int64, notAfter: Int64
    ) {
        self.identity = identity
        self.state = state
        self.chainPEM = chainPEM
        self.rootsPEM = rootsPEM
        self.serialNumber = serialNumber
        self.notBefore = notBefore
        self.notAfter = notAfter
    }
}

/// Where the endpoints get what they show. The one who composes a daemon fills it in; nothing is asked for before
/// somebody asks.
public struct AdminSources: Sendable {
    public var daemon: DaemonFacts
    public var snapshot: @Sendable () async -> MeshSnapshot
    public var connections: @Sendable () async -> [OpenConnection]
    public var certificates: @Sendable () async -> [AdminCertificate]
    /// Prometheus text.
    public var metrics: @Sendable () async -> String
    /// What readiness waits for, in words; empty: ready.
    public var notReady: @Sendable () async -> [String]
    /// The levels as `setLogLevel` reads them.
    public var logLevel: @Sendable () async -> String
    /// nil: back to the start. Returns why the levels were refused, or nil.
    public var setLogLevel: @Sendable (String?) async -> String?
    /// How the workload of this name is captured, and its connections to an address; nil: this daemon captures nothing.
    public var capture: (@Sendable (String, SocketAddress?) async -> CaptureAnswer)?

    public init(
        daemon: DaemonFacts, snapshot: @escaping @Sendable () async -> MeshSnapshot,
        connections: @escaping @Sendable () async -> [OpenConnection],
        certificates: @escaping @Sendable () async -> [AdminCertificate],
        metrics: @escaping @Sendable () async -> String, notReady: @escaping @Sendable () async -> [String],
        logLevel: @escaping @Sendable () async -> String,
        setLogLevel: @escaping @Sendable (String?) async -> String?,
        capture: (@Sendable (String, SocketAddress?) async -> CaptureAnswer)? = nil
    ) {
        self.daemon = daemon
        self.snapshot = snapshot
        self.connections = connections
        self.certificates = certificates
        self.metrics = metrics
        self.notReady = notReady
        self.logLevel = logLevel
        self.setLogLevel = setLogLevel
        self.capture = capture
    }
}
