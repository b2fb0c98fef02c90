public import MeshRuntime
internal import MeshModel
internal import MeshWire

/// One CONNECT stream of an HBONE session as a byte stream.
///
/// What arrived waits here until its owner reads it, and its flow-control window is given back only then: at most
/// `Limits.bufferedBytesPerStream` wait. What the owner writes waits until HTTP/2 frames it: at most `sendLimit`.
public final class TunnelStream: ByteStream {
    let id: Int32
    private unowned let core: Core
    /// nil once the stream left its session.
    private var session: TunnelSession?
    private var received = ByteQueue()
    private var outgoing = ByteQueue()
    private var peerEnded = false
    private var failure: StreamFailure?
    private var writingEnded = false
    private var endSent = false
    /// HTTP/2 is done with the stream: nothing more goes out, and no event will come.
    private var isClosed = false
    private var writerWaits = false
    private var readerWaits = false
    private var failureIsNews = false
    var isAwake = false

    /// Two blocks: one is framed while the other is filled.
    static let sendLimit = 2 * BufferPool.blockBytes

    init(id: Int32, session: TunnelSession) {
        self.id = id
        self.session = session
        self.core = session.core
        super.init()
        session.streams[id] = self
    }

    // MARK: Owner's side

    public override func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        let count = received.read(into: buffer, returningTo: core.buffers)
        if count > 0 {
            if let session {
                session.http2.consumed(stream: id, bytes: count)
                session.scheduleFlush()
            }
            return .bytes(count)
        }
        if let failure { return .failed(failure) }
        if peerEnded { return .endOfStream }
        readerWaits = true
        return .wouldBlock
    }

    public override func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult {
        if let failure { return .failed(failure) }
        if isClosed { return .failed(.reset) }
        precondition(!writingEnded, "write after finishWriting")
        let room = Self.sendLimit - outgoing.count
        if room <= 0 {
            writerWaits = true
            return .wouldBlock
        }
        let count = min(room, bytes.count)
        outgoing.append(UnsafeRawBufferPointer(rebasing: bytes[..<count]), from: core.buffers)
        if count < bytes.count { writerWaits = true }
        resume()
        return .wrote(count)
    }

    public override func finishWriting() {
        guard !writingEnded else { return }
        writingEnded = true
        resume()
    }

    public override func reset() {
        // RFC 9113 §8.5: an abort of the connection behind a CONNECT is a stream error of type CONNECT_ERROR.
        abandon(code: HTTP2ErrorCode.connectError)
    }

    public override func cancel() { abandon(code: HTTP2ErrorCode.cancel) }

    public override func close() {
        owner = nil
        if session == nil || failure != nil || isClosed { return release() }
        if !writingEnded { finishWriting() }
        if !peerEnded {
            // Nobody will read the rest; say so once our own end went out.
            if endSent { abandon(code: HTTP2ErrorCode.noError) } else { isLingering = true }
        } else if endSent {
            release()
        } else {
            isLingering = true
        }
    }

    /// The session answered with an error status and END_STREAM: nothing more is carried.
    func refused() {
        owner = nil
        endSent = true
        writingEnded = true
        release()
    }

    /// Closed by the owner while the last bytes still have to go out.
    private var isLingering = false

    private func abandon(code: UInt32) {
        owner = nil
        if let session, failure == nil, !(peerEnded && endSent) {
            session.http2.reset(stream: id, code: code)
            session.scheduleFlush()
        }
        release()
    }

    private func release() {
        if let session, received.count > 0 { session.http2.consumed(stream: id, bytes: received.count) }
        received.clear(returningTo: core.buffers)
        outgoing.clear(returningTo: core.buffers)
        let session = session.take()
        session?.remove(self)
    }

    private func resume() {
        session?.http2.resume(stream: id)
        session?.scheduleFlush()
    }

    // MARK: Session's side: inside codec callbacks, owners are only marked for later

    func arrived(_ bytes: UnsafeRawBufferPointer) {
        if isLingering {
            session?.http2.consumed(stream: id, bytes: bytes.count)
            return
        }
        received.append(bytes, from: core.buffers)
        if readerWaits { session?.wake(self) }
    }

    func peerFinished() {
        peerEnded = true
        if readerWaits { session?.wake(self) }
    }

    func peerClosed(_ errorCode: UInt32) {
        isClosed = true
        if errorCode == HTTP2ErrorCode.noError {
            // RST_STREAM(NO_ERROR) and a complete stream both end the peer's direction cleanly. What we might still write
            // has no taker any more, as with a TCP peer that closed: whoever writes learns it then.
            peerEnded = true
        } else {
            failure = .reset
            if errorCode == HTTP2ErrorCode.cancel, received.count > 0 {
                // Somebody decided, policy for instance: it holds now, not when a slow reader has read what waits.
                session?.http2.consumed(stream: id, bytes: received.count)
                received.clear(returningTo: core.buffers)
            }
        }
        failureIsNews = failure != nil
        if isLingering || owner == nil { return release() }
        session?.wake(self)
    }

    func sessionEnded(_ reason: Reason) {
        session = nil
        if !(peerEnded && endSent) {
            failure = .reset
            failureIsNews = true
        }
        if isLingering || owner == nil {
            received.clear(returningTo: core.buffers)
            outgoing.clear(returningTo: core.buffers)
        } else {
            isAwake = true
        }
    }

    func produce(into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
        let count = outgoing.read(into: buffer, returningTo: core.buffers)
        if writerWaits && outgoing.count <= Self.sendLimit / 2 { session?.wake(self) }
        let ends = writingEnded && outgoing.count == 0
        if ends {
            endSent = true
            if isLingering { session?.wake(self) }
        }
        return count == 0 && !ends ? .pause : .bytes(count, end: ends)
    }

    /// Called between batches.
    func tellOwner() {
        if isLingering {
            if endSent {
                if peerEnded || failure != nil { release() } else { abandon(code: HTTP2ErrorCode.noError) }
            }
            return
        }
        if let failure, failureIsNews, received.count == 0 {
            failureIsNews = false
            owner?.streamFailed(self, failure)
            return
        }
        if readerWaits && (received.count > 0 || peerEnded || failure != nil) {
            readerWaits = false
            owner?.streamIsReadable(self)
        }
        if writerWaits && (isClosed || outgoing.count <= Self.sendLimit / 2) && failure == nil {
            writerWaits = false
            owner?.streamIsWritable(self)
        }
    }

    /// Bytes that wait in either direction.
    public var bufferedBytes: Int { received.count + outgoing.count }
}
