public import MeshModel

/// One line of the access log: a connection, or a request in a waypoint. A core fills it in; the writer's thread turns
/// it into text. Values that are nil are left out of the line.
public struct AccessLogRecord: Sendable {
    public enum Direction: String, Sendable {
        case inbound
        case outbound
    }

    public enum Event: String, Sendable {
        case connectionComplete = "connection complete"
        case connectionOpened = "connection opened"
        /// Refused before anything about it was known.
        case connectionFailed = "connection failed"
        case requestComplete = "request complete"
    }

    /// What a waypoint adds for a request.
    public struct Request: Sendable {
        public var method: String
        public var path: String
        /// 0 when no response was sent.
        public var status: Int
        public var route: ObjectName?

        public init(method: String, path: String, status: Int, route: ObjectName?) {
            self.method = method
            self.path = path
            self.status = status
            self.route = route
        }
    }

    /// What the kernel adds for a connection that it carried without the proxy.
    public struct Kernel: Sendable {
        /// Smoothed, at the end; 0 when none was measured.
        public var roundTripMicroseconds: UInt32
        /// Segments that the client sent again.
        public var retransmits: UInt32
        /// How many bytes of both directions bypassed TCP; 0 for a connection that was not accelerated.
        public var bytesAccelerated: UInt64

        public init(roundTripMicroseconds: UInt32, retransmits: UInt32, bytesAccelerated: UInt64 = 0) {
            self.roundTripMicroseconds = roundTripMicroseconds
            self.retransmits = retransmits
            self.bytesAccelerated = bytesAccelerated
        }
    }

    public var time: Timestamp
    public var event: Event
    public var direction: Direction
    public var source: SocketAddress?
    public var sourceWorkload: ObjectName?
    /// Only with mutual TLS.
    public var sourceIdentity: SPIFFEID?
    public var destination: SocketAddress?
    /// The CONNECT authority.
    public var authority: String?
    public var service: ObjectName?
    public var destinationWorkload: ObjectName?
    /// Only with mutual TLS.
    public var destinationIdentity: SPIFFEID?
    /// By who sent them. The line shows them from the side of the workload that this proxy serves (`bytes_sent` is
    /// what that workload sent), unlike metrics, whose words are always the called one's.
    public var bytesFromClient: UInt64 = 0
    public var bytesToClient: UInt64 = 0
    public var durationNanoseconds: UInt64 = 0
    public var error: String?
    public var reason: Reason = .none
    /// The policy object that decided.
    public var policy: ObjectName?
    public var request: Request?
    public var kernel: Kernel?

    public init(time: Timestamp, event: Event, direction: Direction) {
        self.time = time
        self.event = event
        self.direction = direction
    }
}

extension AccessLogRecord {
    /// Failures stand out: early ones as warnings, as in ztunnel.
    private var level: String {
        switch event {
        case .connectionOpened: "debug"
        case .connectionFailed: "warn"
        case .connectionComplete, .requestComplete: error == nil ? "info" : "error"
        }
    }

    /// Writes the line, with its line feed.
    func write(to line: inout LineEncoder) {
        line.begin(time: time, level: level, scope: "access", message: event.rawValue)
        line.field("src.addr", source)
        line.field("src.workload", sourceWorkload?.name)
        line.field("src.namespace", sourceWorkload?.namespace)
        line.field("src.identity", sourceIdentity)
        line.field("dst.addr", destination)
        line.field("dst.hbone_addr", authority)
        line.field("dst.service", service?.serviceHost)
        line.field("dst.workload", destinationWorkload?.name)
        line.field("dst.namespace", destinationWorkload?.namespace)
        line.field("dst.identity", destinationIdentity)
        line.field("direction", direction.rawValue)
        line.field("bytes_sent", direction == .outbound ? bytesFromClient : bytesToClient)
        line.field("bytes_recv", direction == .outbound ? bytesToClient : bytesFromClient)
        line.field("duration", durationNanoseconds / 1_000_000, "ms")
        line.field("error", error)
        line.field("reason", reason.rawValue)
        line.field("policy", policy?.description)
        if let kernel {
            line.field("tier", kernel.bytesAccelerated > 0 ? "sockmap" : "direct")
            line.field("srtt", UInt64(kernel.roundTripMicroseconds), "us")
            line.field("retransmits", UInt64(kernel.retransmits))
            if kernel.bytesAccelerated > 0 { line.field("bytes_accelerated", kernel.bytesAccelerated) }
        }
        if let request {
            line.field("method", request.method)
            line.field("path", request.path)
            line.field("status", UInt64(request.status))
            line.field("route", request.route?.description)
        }
        line.end()
    }
}
