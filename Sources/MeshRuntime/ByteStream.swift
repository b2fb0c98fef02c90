/// What a read gave. Expected outcomes are values, not errors.
public enum ReadResult: Equatable, Sendable {
    /// This many bytes were placed, at least one.
    case bytes(Int)
    /// Nothing now; the owner hears `streamIsReadable` when there is something.
    case wouldBlock
    /// The peer finished its direction cleanly. Repeats on every further read.
    case endOfStream
    case failed(StreamFailure)
}

/// What a write took.
public enum WriteResult: Equatable, Sendable {
    /// This many bytes were taken, at least one; fewer than given means the rest would block:
    /// the owner hears `streamIsWritable` when there is room.
    case wrote(Int)
    case wouldBlock
    case failed(StreamFailure)
}

/// Why a stream broke.
public enum StreamFailure: Error, Hashable, Sendable {
    /// The peer aborted: TCP RST, HTTP/2 RST_STREAM.
    case reset
    case timedOut
    case refused
    case unreachable
    /// The peer broke the protocol that carries the stream.
    case protocolViolation
    /// Any other errno.
    case system(Int32)
}

/// The one seam of the data plane: two directions of bytes with back-pressure, half-close and reset.
/// A plain socket, a TLS session over a socket and an HBONE stream inside a session are kinds of it,
/// and so is the simulator's stream in tests.
///
/// Readiness is edge-triggered: after `wouldBlock` (or a short write) the owner is told once, and only then.
/// A new stream counts as both readable and writable unless its maker says otherwise.
/// Everything happens on the stream's core; calls back to the owner never happen inside a call made by the owner
/// on the same stream.
open class ByteStream {
    /// Hears about readiness and failure; released when the stream is closed or reset.
    public final var owner: StreamOwner?

    public init() {}

    /// Reads what is there into `buffer` (not empty).
    open func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult { fatalError("abstract") }

    /// Takes as much of `bytes` (not empty) as fits now.
    open func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult { fatalError("abstract") }

    /// Ends our direction after everything written (FIN, END_STREAM); reading goes on.
    open func finishWriting() { fatalError("abstract") }

    /// Aborts both directions so that the peer sees it as an abort (RST, RST_STREAM), and releases the stream.
    /// No call back follows.
    open func reset() { fatalError("abstract") }

    /// Aborts like `reset`, by a decision of ours and not because something broke: what waits on the way to the peer's
    /// reader is not worth delivering. The same as `reset` where the carrier makes no difference.
    open func cancel() { reset() }

    /// Releases the stream. What was written before is still delivered. No call back follows.
    open func close() { fatalError("abstract") }
}

/// Whoever works a stream. One owner may work several streams.
open class StreamOwner {
    public init() {}

    open func streamIsReadable(_ stream: ByteStream) {}
    open func streamIsWritable(_ stream: ByteStream) {}
    /// The stream broke while nobody was in a call on it. It must still be closed or reset.
    open func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) {}
}
