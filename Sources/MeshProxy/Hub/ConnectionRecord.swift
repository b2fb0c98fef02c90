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

    /// Takes over what `resolve` found out about the destination.
    public mutating func note(_ resolution: Resolution) {
        switch resolution {
        case .passthrough: break
        case .plain(_, let found), .local(_, _, let found), .refuse(_, let found): note(found)
        case .tunnel(let tunnel, let found):
            note(found)
            tunnelAuthority = tunnel.authority
        }
    }

    private mutating func note(_ found: Destination) {
        destinationService = found.service ?? destinationService
        destinationWorkload = found.workload ?? destinationWorkload
    }

    /// Whether a workload of this proxy named `name` is an end of the connection.
    func belongs(to name: ObjectName) -> Bool {
        sourceWorkload?.name == name || destinationWorkload?.name == name
    }
}

/// A connection that went without the proxy, when it is over (tiers T1 and T2).
public struct DirectConnection: Sendable {
    /// What decides which workloads and which service it belongs to; thousands of connections have it in common.
    struct Ends: Hashable {
        let source: IPAddress
        let destination: IPAddress
        let service: SocketAddress?
    }

    public var source: SocketAddress
    /// The workload's own address.
    public var destination: SocketAddress
    /// What the application asked for, when that was a service.
    public var service: SocketAddress?
    /// In nanoseconds on the clock of the core, like `endedAt`.
    public var startedAt: UInt64
    public var endedAt: UInt64
    public var isEstablished: Bool
    public var bytesFromClient: UInt64
    public var bytesToClient: UInt64
    /// Smoothed, at the end; 0 when none was measured.
    public var roundTripMicroseconds: UInt32
    public var retransmits: UInt32
    /// How many bytes of both directions bypassed TCP.
    public var bytesAccelerated: UInt64
    public var reason: Reason
    public var policy: ObjectName?

    public init(
        source: SocketAddress, destination: SocketAddress, service: SocketAddress?, startedAt: UInt64, endedAt: UInt64,
        isEstablished: Bool, bytesFromClient: UInt64, bytesToClient: UInt64, roundTripMicroseconds: UInt32,
        retransmits: UInt32, bytesAccelerated: UInt64, reason: Reason, policy: ObjectName?
    ) {
        self.source = source
        self.destination = destination
        self.service = service
        self.startedAt = startedAt
        self.endedAt = endedAt
        self.isEstablished = isEstablished
        self.bytesFromClient = bytesFromClient
        self.bytesToClient = bytesToClient
        self.roundTripMicroseconds = roundTripMicroseconds
        self.retransmits = retransmits
        self.bytesAccelerated = bytesAccelerated
        self.reason = reason
        self.policy = policy
    }

    var ends: Ends { Ends(source: source.ip, destination: destination.ip, service: service) }

    /// What is known of it by its ends alone.
    func record(in snapshot: MeshSnapshot) -> ConnectionRecord {
        var record = ConnectionRecord(
            direction: .outbound, source: source, destination: service ?? destination, startedAt: startedAt)
        record.destinationService = service.flatMap { snapshot.service(at: $0.ip) }
        record.sourceWorkload = snapshot.workload(at: source.ip)
        record.sourceIdentity = record.sourceWorkload?.identity
        record.destinationWorkload = snapshot.workload(at: destination.ip)
        record.destinationIdentity = record.destinationWorkload?.identity
        record.isSameNode = true
        return record
    }
}
