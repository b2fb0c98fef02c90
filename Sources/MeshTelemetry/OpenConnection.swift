public import MeshModel

/// A connection that is open now.
public struct OpenConnection: Hashable, Sendable {
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
