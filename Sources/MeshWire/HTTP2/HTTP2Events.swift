/// What `outgoingData` gives to a DATA frame.
public enum OutgoingData: Sendable {
    /// The first `n` bytes of the buffer are filled; `end` is true when nothing follows them on this stream.
    case bytes(Int, end: Bool)
    /// Nothing now: `resume(stream:)` asks again.
    case pause
    /// The data cannot be had: the stream is reset with INTERNAL_ERROR, without a `closed` event.
    case fail
}

/// What a session tells its owner, from inside `receive` and `produce`.
///
/// All methods of the session but those two may be called from here. Nothing is told of a stream after `closed`, or
/// after this side called `reset` on it. Buffers are valid during the call only.
open class HTTP2Events {
    public init() {}

    /// A complete header block: a request (server), the final response (client) or trailers.
    /// Informational responses are skipped. With `endStream`, `endOfStream` follows.
    open func headers(stream: Int32, _ fields: HeaderBlock, endStream: Bool) {}

    /// A piece of the stream's data. Its bytes count against both windows until `consumed(stream:bytes:)`.
    open func data(stream: Int32, _ bytes: UnsafeRawBufferPointer) {}

    /// The peer's direction has ended cleanly. Told once.
    open func endOfStream(stream: Int32) {}

    /// The stream is over: both directions ended (NO_ERROR), the peer reset it, or it was never sent.
    /// Bytes that are not consumed yet still count against the session's window: `consumed` or `reset` frees them.
    open func closed(stream: Int32, errorCode: UInt32) {}

    /// The peer takes no stream above `lastStream`. Those above it are closed with REFUSED_STREAM.
    open func goAway(lastStream: Int32, errorCode: UInt32) {}

    /// The peer's SETTINGS are in force: `peerMaxConcurrentStreams` may have changed.
    open func settingsReceived() {}

    /// The answer to the latest `ping()`.
    open func pingAcknowledged() {}

    /// A new request broke the rules of RFC 9113 §8: for a CONNECT, `:authority` absent or `:scheme` or `:path`
    /// present. It was reset with PROTOCOL_ERROR and no other event tells of it.
    open func malformedRequest(stream: Int32) {}

    /// Room for data in the frame being written: fill its beginning. Never empty.
    open func outgoingData(stream: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData { .pause }
}
