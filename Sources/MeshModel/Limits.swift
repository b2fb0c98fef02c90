/// Every bound of the data plane in one place: name, unit, and what happens when it is reached.
public struct Limits: Hashable, Sendable {
    // Handshakes: further connections are closed at once with `limit_reached`; a slow one with `handshake_timeout`.
    public var handshakesInFlightPerCore = 1024
    public var handshakeTimeoutNanoseconds: UInt64 = 10_000_000_000
    /// From the end of the handshake to the first complete CONNECT: `request_timeout`.
    public var firstRequestTimeoutNanoseconds: UInt64 = 10_000_000_000
    /// TCP connect to a peer or an application: `upstream_connect_timeout`.
    public var connectTimeoutNanoseconds: UInt64 = 10_000_000_000
    /// From our CONNECT to its response: `upstream_connect_timeout`.
    public var tunnelResponseTimeoutNanoseconds: UInt64 = 15_000_000_000
    // HTTP/2: a peer past these gets GOAWAY or RST_STREAM from the session.
    public var headerListBytes = 16 * 1024
    public var streamsPerSession = 1024
    /// Streams we open on one pooled session before another one is made.
    public var pooledStreamsPerSession = 100
    /// Bytes that may wait in a proxy for one direction of one stream: the reader is paused.
    public var bufferedBytesPerStream = 1024 * 1024
    public var bufferedBytesPerSession = 16 * 1024 * 1024
    /// A pooled session without streams is closed after this.
    public var poolIdleNanoseconds: UInt64 = 300_000_000_000
    /// HTTP/2 PING on an open session; without an answer in `pingTimeout` the session is closed.
    public var pingIntervalNanoseconds: UInt64 = 10_000_000_000
    public var pingTimeoutNanoseconds: UInt64 = 20_000_000_000
    /// After SIGTERM: streams still open are reset with `drain`.
    public var drainNanoseconds: UInt64 = 25_000_000_000
    // HTTP/1.1 in the waypoint: 431, 400, 408.
    public var httpHeaderBytes = 64 * 1024
    public var httpHeaderCount = 100
    public var httpHeadersTimeoutNanoseconds: UInt64 = 10_000_000_000
    public var httpIdleNanoseconds: UInt64 = 300_000_000_000

    public init() {}
}
