public import MeshModel

/// What is known of one connection, for its access-log line and its counters.
public struct ConnectionRecord: Sendable {
    public enum Direction: String, Sendable { case inbound, outbound }

    public var direction: Direction
    public var source: SocketAddress
    public var sourceWorkload: Workload?
    /// Proven by TLS or by the network namespace; never guessed from an address.
    public var sourceIdentity: SPIFFEID?
    public var destination: SocketAddress
    public var destinationWorkload: Workload?
    public var destinationService: Service?
    /// The authority of the CONNECT, when a tunnel carries the connection.
    public var tunnelAuthority: SocketAddress?
    /// The identity the destination proved.
    public var destinationIdentity: SPIFFEID?
    public var isMutualTLS = false
    /// Both ends are workloads of this proxy, and it speaks for the destination too (T0).
    public var isSameNode = false
    public var startedAt: UInt64
    public var establishedAt: UInt64?
    public var bytesFromDownstream: UInt64 = 0
    public var bytesFromUpstream: UInt64 = 0
    public var reason: Reason = .none
    public var policy: ObjectName?
    public var error: String?

    public init(direction: Direction, source: SocketAddress, destination: SocketAddress, startedAt: UInt64) {
        self.direction = direction
        self.source = source
        self.destination = destination
        self.startedAt = startedAt
    }

    /// Whether a workload of this proxy named `name` is an end of the connection.
    func belongs(to name: ObjectName) -> Bool {
        sourceWorkload?.name == name || destinationWorkload?.name == name
    }
}
