public import MeshModel

/// One request as the access log and `istio_requests_total` want it.
public struct HTTPRequestRecord: Sendable {
    public struct Flags: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8

        public init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// Sent over a connection that had served a request before.
        public static let reusedUpstream = Flags(rawValue: 1)
        /// Sent a second time, after the server had closed a reused connection.
        public static let retried = Flags(rawValue: 2)
        /// Became a tunnel (101).
        public static let upgraded = Flags(rawValue: 4)
        /// Answered by us.
        public static let local = Flags(rawValue: 8)
        /// The answer was complete before the request was.
        public static let earlyResponse = Flags(rawValue: 16)
        /// The client did not get the whole answer.
        public static let incomplete = Flags(rawValue: 32)
    }

    /// Empty where the request could not be parsed.
    public var method = ""
    /// Without query.
    public var path = ""
    public var host = ""
    /// 0 where no answer was begun.
    public var status = 0
    /// The service asked for.
    public var service: ObjectName
    public var port: UInt16
    /// The service chosen by a route, nil where none was.
    public var backend: ObjectName?
    public var backendPort: UInt16?
    public var route: ObjectName?
    /// The caller.
    public var caller: SPIFFEID?
    /// Content from and to the client, without heads and framing; for a tunnel everything after the 101.
    public var bytesReceived: UInt64 = 0
    public var bytesSent: UInt64 = 0
    /// Core time at the complete head.
    public var startNanoseconds: UInt64
    /// From the complete head to the last byte of the answer handed to the stream.
    public var durationNanoseconds: UInt64 = 0
    public var reason = Reason.none
    public var flags: Flags = []

    init(_ downstream: HTTPDownstream, start: UInt64) {
        service = downstream.service
        port = downstream.port
        caller = downstream.caller
        startNanoseconds = start
    }
}
