public import MeshModel
public import MeshTelemetry

/// What a waypoint proxy is started with.
public struct WaypointOptions: Sendable {
    public var gateway: ObjectName
    /// A YAML file or a folder of them.
    public var configuration: String
    /// Data cores: one thread each.
    public var cores: Int
    /// The node proxy's socket; nil: the only one below /run/culvert.
    public var identitySocket: String?
    public var adminPort: Int
    public var metricsPort: Int
    public var readinessPort: Int
    public var logFormat: LogFormat
    /// This release.
    public static let version = "0.1.0"

    public init(
        gateway: ObjectName, configuration: String, cores: Int, identitySocket: String? = nil, adminPort: Int = 15000,
        metricsPort: Int = 15020, readinessPort: Int = 15021, logFormat: LogFormat = .text
    ) {
        self.gateway = gateway
        self.configuration = configuration
        self.cores = cores
        self.identitySocket = identitySocket
        self.adminPort = adminPort
        self.metricsPort = metricsPort
        self.readinessPort = readinessPort
        self.logFormat = logFormat
    }
}

/// Why the waypoint cannot start or go on: what was wrong, where, and what to do.
public struct WaypointError: Error, CustomStringConvertible, Sendable {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}
