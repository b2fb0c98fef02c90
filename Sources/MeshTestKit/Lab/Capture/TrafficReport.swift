public import MeshModel

/// What a capture saw between the nodes.
public struct TrafficReport: Sendable {
    /// What can be said of a connection without keys.
    public enum Security: Sendable, Hashable {
        /// No byte was sent.
        case silent
        /// Only TLS 1.3 records, and a ServerHello that chose it; protected records of both directions.
        case tls13(cipher: UInt16, records: Int)
        /// A ClientHello without an answer.
        case handshakeUnfinished
        /// Older than the capture.
        case handshakeNotSeen
        /// The capture missed bytes.
        case incomplete
        /// Something else, and where.
        case notTLS13(String)
    }

    /// One TCP connection.
    public struct Flow: Sendable {
        public let client: SocketAddress
        public let server: SocketAddress
        public let bytesToServer: Int
        public let bytesToClient: Int
        public let security: Security
        /// The first bytes sent, what cannot be printed as dots.
        public let beginning: String

        public var bytes: Int { bytesToServer + bytesToClient }
    }

    public struct MarkerHit: Sendable {
        public let marker: String
        public let place: String
    }

    public let flows: [Flow]
    /// Where a marker was read in clear.
    public let markerHits: [MarkerHit]
    public let frames: Int
    public let malformedFrames: Int
    /// Frames that were neither TCP nor a network's housekeeping, by IP protocol (255: not IP).
    public let otherFrames: [UInt8: Int]
    /// Frames that the kernel could not hand over in time.
    public let lostFrames: Int
    /// Connections over the limit of what is remembered.
    public let forgottenFlows: Int

    /// Connections to the tunnel's port that carried anything.
    public func tunnels(port: UInt16 = 15008) -> [Flow] {
        flows.filter { $0.server.port == port && $0.bytes > 0 }
    }

    /// Connections to other ports that carried anything: nothing between meshed pods may.
    public func outsideTunnels(port: UInt16 = 15008) -> [Flow] {
        flows.filter { $0.server.port != port && $0.bytes > 0 }
    }

    /// Whether nothing was missed, so that "not seen" means "not sent".
    public var isComplete: Bool { lostFrames == 0 && forgottenFlows == 0 && malformedFrames == 0 }
}

extension TrafficReport.Flow: CustomStringConvertible {
    public var description: String {
        "\(client) → \(server): \(bytesToServer) bytes there, \(bytesToClient) back, \(security)"
    }
}

extension TrafficReport.Security: CustomStringConvertible {
    public var description: String {
        switch self {
        case .silent: "no payload"
        case .tls13(let cipher, let records): "TLS 1.3, \(Self.name(cipher)), \(records) protected records"
        case .handshakeUnfinished: "a ClientHello without answer"
        case .handshakeNotSeen: "begun before the capture"
        case .incomplete: "not seen completely"
        case .notTLS13(let what): "not TLS 1.3 (\(what))"
        }
    }

    /// RFC 8446 §B.4.
    private static func name(_ cipher: UInt16) -> String {
        switch cipher {
        case 0x1301: "TLS_AES_128_GCM_SHA256"
        case 0x1302: "TLS_AES_256_GCM_SHA384"
        case 0x1303: "TLS_CHACHA20_POLY1305_SHA256"
        default: "cipher suite 0x" + String(cipher, radix: 16)
        }
    }
}
