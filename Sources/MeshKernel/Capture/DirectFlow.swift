internal import CMeshABI
public import MeshModel

/// A pair of workloads of this node, by direction of the connection.
public struct DirectPair: Hashable, Sendable {
    public let source: ObjectName
    public let destination: ObjectName

    public init(source: ObjectName, destination: ObjectName) {
        self.source = source
        self.destination = destination
    }
}

/// A connection between two workloads of this node that goes without the proxy, while it is open.
public struct DirectFlow: Hashable, Sendable {
    /// The client's address and port.
    public let source: SocketAddress
    public let destination: SocketAddress
    /// When connect() was called, on the monotonic clock, in nanoseconds.
    public let startedAt: UInt64
    /// Who the ends are: known by their namespaces, not by the addresses. nil: not captured any more.
    public internal(set) var sourceWorkload: ObjectName?
    public internal(set) var destinationWorkload: ObjectName?
    /// Allowed under the rules that hold now, as opposed to earlier ones.
    public let isConfirmed: Bool
    /// It may bypass TCP; whether it does is for the two ends to find out.
    public let isAccelerated: Bool
    /// The application asked for a service's address.
    public let isByService: Bool
    let sourceSlot: UInt32
    let destinationSlot: UInt32

    init(_ tuple: culvert_tuple, _ flow: culvert_flow, generation: UInt32) {
        source = tuple.source
        destination = tuple.destination
        startedAt = flow.started_ns
        isConfirmed = flow.generation == generation
        isAccelerated = flow.flags & UInt16(CULVERT_RULE_ACCELERATED.rawValue) != 0
        isByService = flow.flags & UInt16(CULVERT_FLOW_BY_SERVICE.rawValue) != 0
        sourceSlot = flow.source
        destinationSlot = flow.destination
    }
}

/// What the kernel knows of a direct connection that is over.
public struct DirectRecord: Hashable, Sendable {
    public let source: SocketAddress
    public let destination: SocketAddress
    /// The service's address, when the application asked for one and the kernel chose the endpoint.
    public let service: SocketAddress?
    /// From connect() to the close of the client's socket, on the monotonic clock, in nanoseconds.
    public let startedAt: UInt64
    public let endedAt: UInt64
    /// Payload: what the client sent and the server acknowledged, and what the client's kernel received.
    public let bytesSent: UInt64
    public let bytesReceived: UInt64
    /// Of both together, what bypassed TCP.
    public let bytesAccelerated: UInt64
    /// Smoothed round-trip time at the end, in microseconds; 0 when none was measured.
    public let roundTripMicroseconds: UInt32
    /// Segments sent again by the client.
    public let retransmits: UInt32
    /// The handshake was completed.
    public let isEstablished: Bool
    /// The server acknowledged the client's end of stream; false after a reset.
    public let isOrderly: Bool

    init(_ record: culvert_closed) {
        source = record.tuple.source
        destination = record.tuple.destination
        service =
            record.asked.port == 0
            ? nil : SocketAddress(ip: IPAddress(record.asked.address), port: record.asked.port)
        startedAt = record.flow.started_ns
        endedAt = record.ended_ns
        bytesSent = record.bytes_sent
        bytesReceived = record.bytes_received
        bytesAccelerated = record.bytes_short
        roundTripMicroseconds = record.srtt_us
        retransmits = record.retransmits
        isEstablished = record.established != 0
        isOrderly = record.orderly != 0
    }
}

extension culvert_tuple {
    init(_ source: SocketAddress, _ destination: SocketAddress) {
        self.init(
            client: source.ip.abi, server: destination.ip.abi, client_port: source.port,
            server_port: destination.port, padding: 0)
    }

    var source: SocketAddress { SocketAddress(ip: IPAddress(client), port: client_port) }
    var destination: SocketAddress { SocketAddress(ip: IPAddress(server), port: server_port) }
}

extension IPAddress {
    /// From 16 bytes in network order, IPv4 mapped (RFC 4291 §2.5.5.2).
    init(_ address: culvert_address) {
        let (high, low) = withUnsafeBytes(of: address) { bytes in
            (
                UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
            )
        }
        self.init(high: high, low: low)
    }
}
