public import MeshModel

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

    public init(kind: Kind, name: String, version: String, cores: Int) {
        self.kind = kind
        self.name = name
        self.version = version
        self.cores = cores
    }
}

/// A connection that is open now.
public struct AdminConnection: Hashable, Sendable {
    public enum Direction: String, Encodable, Sendable {
        case inbound
        case outbound
    }

    /// Whose network namespace it was captured in; for a waypoint the waypoint itself.
    public var workload: ObjectName
    public var direction: Direction
    public var source: SocketAddress
    /// What the application asked for.
    public var originalDestination: SocketAddress?
    /// What is really connected to.
    public var actualDestination: SocketAddress?
    /// `HBONE` when it goes through a tunnel, else `TCP`.
    public var isTunnel: Bool
    public var peerIdentity: SPIFFEID?
    public var bytesFromClient: UInt64
    public var bytesToClient: UInt64
    public var ageMilliseconds: UInt64

    public init(
        workload: ObjectName, direction: Direction, source: SocketAddress, originalDestination: SocketAddress?,
        actualDestination: SocketAddress?, isTunnel: Bool, peerIdentity: SPIFFEID?, bytesFromClient: UInt64,
        bytesToClient: UInt64, ageMilliseconds: UInt64
    ) {
        self.workload = workload
        self.direction = direction
        self.source = source
        self.originalDestination = originalDestination
        self.actualDestination = actualDestination
        self.isTunnel = isTunnel
        self.peerIdentity = peerIdentity
        self.bytesFromClient = bytesFromClient
        self.bytesToClient = bytesToClient
        self.ageMilliseconds = ageMilliseconds
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
    public var connections: @Sendable () async -> [AdminConnection]
    public var certificates: @Sendable () async -> [AdminCertificate]
    /// Prometheus text.
    public var metrics: @Sendable () async -> String
    /// What readiness waits for, in words; empty: ready.
    public var notReady: @Sendable () async -> [String]
    /// The levels as `setLogLevel` reads them.
    public var logLevel: @Sendable () async -> String
    /// nil: back to the start. Returns why the levels were refused, or nil.
    public var setLogLevel: @Sendable (String?) async -> String?

    public init(
        daemon: DaemonFacts, snapshot: @escaping @Sendable () async -> MeshSnapshot,
        connections: @escaping @Sendable () async -> [AdminConnection],
        certificates: @escaping @Sendable () async -> [AdminCertificate],
        metrics: @escaping @Sendable () async -> String, notReady: @escaping @Sendable () async -> [String],
        logLevel: @escaping @Sendable () async -> String,
        setLogLevel: @escaping @Sendable (String?) async -> String?
    ) {
        self.daemon = daemon
        self.snapshot = snapshot
        self.connections = connections
        self.certificates = certificates
        self.metrics = metrics
        self.notReady = notReady
        self.logLevel = logLevel
        self.setLogLevel = setLogLevel
    }
}
