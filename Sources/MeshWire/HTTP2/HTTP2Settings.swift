public import MeshModel

/// What one side of a session announces, and the bounds it holds its peer to.
public struct HTTP2Settings: Hashable, Sendable {
    /// Bytes of one stream that a peer may have in flight and that may wait for their reader.
    /// RFC 9113 §6.9.2; 1…2³¹−1.
    public var streamWindow = 1 << 20
    /// The same for all streams of the session together. Wider than a stream's, so that one slow reader does not
    /// stop the others; 65 535…2³¹−1.
    public var connectionWindow = 16 << 20
    /// Largest frame payload accepted (RFC 9113 §4.2); 16 384…16 777 215.
    public var maxFrameSize = 16384
    /// Streams that the peer may have open; a further one is refused (RFC 9113 §5.1.2). Announced by servers only.
    public var maxConcurrentStreams = 1024
    /// Size of a header list as RFC 9113 §6.5.2 counts it: names and values plus 32 bytes a field. A longer one is
    /// not kept: its `HeaderBlock` says `exceedsLimit`.
    public var headerListBytes = 16 * 1024
    /// Frames that make work without carrying anything (PING, SETTINGS, PRIORITY, empty DATA, refused and malformed
    /// requests): this many at once, then `controlFramesPerSecond`. Past it the session ends.
    public var controlFrameBurst = 1000
    public var controlFramesPerSecond = 100
    /// Requests that the peer resets before they were answered (rapid reset): this many at once, then
    /// `unansweredResetsPerSecond`. Past it the session ends.
    public var unansweredResetBurst = 1000
    public var unansweredResetsPerSecond = 100
    /// Frames that may wait for a peer that does not read, besides four for each open stream. Past it the session ends.
    public var queuedFrames = 4096

    public init() {}

    /// The session's share of the data plane's limits.
    public init(_ limits: Limits) {
        streamWindow = limits.bufferedBytesPerStream
        connectionWindow = max(limits.bufferedBytesPerSession, 65535)
        maxConcurrentStreams = limits.streamsPerSession
        headerListBytes = limits.headerListBytes
    }
}
