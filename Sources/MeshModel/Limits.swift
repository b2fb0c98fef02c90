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
    // DNS, all of it by workload. Past the questions in flight a client gets SERVFAIL (or a stale answer) at once.
    public var dnsQuestionsInFlight = 256
    /// Clients that wait for one question in flight, and questions of one TCP connection that wait.
    public var dnsWaitersPerQuestion = 64
    /// Further connections are reset.
    public var dnsStreams = 64
    public var dnsStreamIdleNanoseconds: UInt64 = 10_000_000_000
    /// One upstream and one try; then the next upstream, or the same again.
    public var dnsAttemptNanoseconds: UInt64 = 2_000_000_000
    public var dnsAttemptsPerServer = 2
    /// All tries together: below the five seconds after which the C library's resolver asks again.
    public var dnsQuestionNanoseconds: UInt64 = 4_500_000_000
    /// Answers that belong to another question before an upstream is asked by TCP, where nobody can guess one in.
    public var dnsMismatches = 8
    /// The cache drops what was used longest ago.
    public var dnsCacheEntries = 1024
    public var dnsCacheBytes = 256 * 1024
    /// Seconds: what upstreams say is cut to these (RFC 8767 §4, RFC 2308 §5).
    public var dnsMaximumTTL: UInt32 = 86_400
    public var dnsMaximumNegativeTTL: UInt32 = 900
    /// Seconds that an answer may be served past its time while no upstream answers (RFC 8767 §5).
    public var dnsStaleSeconds: UInt32 = 86_400
    public var dnsStaleTTL: UInt32 = 30
    /// A client that can be given a stale answer waits no longer than this for a fresh one.
    public var dnsStaleAfterNanoseconds: UInt64 = 1_800_000_000
    /// Upstreams that failed for a name are not asked for it again before this, while there is a stale answer.
    public var dnsRetryNanoseconds: UInt64 = 30_000_000_000
    /// The TTL in seconds of names that the mesh itself knows, and how many addresses one answer holds: of more, some.
    public var dnsOwnTTL: UInt32 = 30
    public var dnsAddresses = 256

    public init() {}
}
