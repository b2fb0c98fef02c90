public import MeshModel
public import MeshRuntime
internal import MeshTLS
public import MeshWire

/// One HBONE session: HTTP/2 over TLS over a byte stream, which is a socket outside of tests,
/// either side of it.
///
///     socket ──ciphertext──▶ TLSSession.open ──▶ HTTP2Session.receive ──▶ TunnelStream (waits for its reader)
///     socket ◀─ciphertext── TLSSession.seal ◀── HTTP2Session.produce ◀── TunnelStream (waits for room)
///
/// Invariants:
/// - received plaintext is always taken whole by HTTP/2, because flow-control windows bound what a peer may send;
/// - nothing is sealed while sealed bytes still wait for the socket, so at most one block of ciphertext is held;
/// - owners of streams are called only between batches, never from inside a codec's callback;
/// - `fail` runs once, ends every stream and forgets the session.
open class TunnelSession: StreamOwner {
    public enum Phase { case connecting, handshaking, open, closed }

    public let core: Core
    /// Carries the ciphertext.
    let transport: ByteStream
    let tls: TLSSession
    let http2: HTTP2Session
    let limits: Limits
    public private(set) var phase: Phase
    var streams: [Int32: TunnelStream] = [:]
    /// Streams whose owner has to hear something after the current batch.
    private var awake: [TunnelStream] = []
    private var isDispatching = false

    private var sealed: UnsafeMutableRawBufferPointer?
    private var sealedStart = 0
    private var sealedEnd = 0
    private var flushWork: SessionFlush?
    private var timer: SessionTimer?
    private var isDraining = false
    /// Drained: close_notify is said, and what the peer still sends is read until its own end.
    private var isLeaving = false
    private var saidEnd = false
    private var pingSentAt: UInt64 = 0

    /// Where the two halves of a batch live in the core's scratch space; never held across a call to an owner.
    private static let batch = BufferPool.blockBytes
    /// So much plaintext that its records fill one block.
    private static let plaintextBatch = batch - 4 * TLSSession.maximumRecordOverhead

    init(
        core: Core, transport: ByteStream, tls: TLSSession, http2: HTTP2Session, events: SessionEvents, limits: Limits,
        connecting: Bool
    ) {
        self.core = core
        self.transport = transport
        self.tls = tls
        self.http2 = http2
        self.limits = limits
        self.phase = connecting ? .connecting : .handshaking
        super.init()
        events.session = self
        flushWork = SessionFlush()
        timer = SessionTimer(self)
        transport.owner = self
        core.schedule(timer!, after: connecting ? limits.connectTimeoutNanoseconds : limits.handshakeTimeoutNanoseconds)
    }

    // MARK: For subclasses

    /// The handshake is done and the peer's identity verified.
    open func opened(peer: SPIFFEID) {}
    /// A complete header block: a request on the server side, a response on the client side.
    open func received(_ fields: HeaderBlock, on streamID: Int32, endStream: Bool) {}
    /// A request that HTTP/2 itself refuses, such as a CONNECT without an authority.
    open func receivedMalformed() {}
    /// A stream is over, by both sides' ends or by the peer's reset. Told before the stream itself hears of it.
    open func streamClosed(_ streamID: Int32, _ errorCode: UInt32) {}
    /// The peer takes no new streams.
    open func peerGoesAway() {}
    /// The session is over. Its streams have been told already.
    open func closed(_ reason: Reason, _ detail: String) {}
    /// No stream is left.
    open func becameIdle() {}
    open func timerFired() -> Bool { false }

    // MARK: Socket

    open override func streamIsWritable(_ stream: ByteStream) {
        if phase == .connecting {
            phase = .handshaking
            core.schedule(timer!, after: limits.handshakeTimeoutNanoseconds)
            handshake(UnsafeRawBufferPointer(start: nil, count: 0))
            receive()
        }
        flush()
        dispatch()
    }

    open override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) {
        fail(phase == .connecting ? connectReason(failure) : .upstreamReset, failure.text)
    }

    private func connectReason(_ failure: StreamFailure) -> Reason {
        switch failure {
        case .refused: .upstreamRefused
        case .timedOut: .upstreamConnectTimeout
        default: .upstreamConnectFailed
        }
    }

    open override func streamIsReadable(_ stream: ByteStream) { receive() }

    func receive() {
        var batches = 0
        while phase == .handshaking || phase == .open {
            if batches == 16 {
                // Fairness: others get their turn; the rest is read in the next one.
                flushWork!.readsToo = true
                scheduleFlush()
                break
            }
            batches += 1
            let space = UnsafeMutableRawBufferPointer(rebasing: core.scratch[..<Self.batch])
            switch transport.read(into: space) {
            case .wouldBlock: return dispatch()
            case .endOfStream: return ended()
            case .failed(let failure): return fail(.upstreamReset, failure.text)
            case .bytes(let count):
                let ciphertext = UnsafeRawBufferPointer(rebasing: space[..<count])
                if phase == .handshaking { handshake(ciphertext) } else { open(ciphertext) }
                dispatch()
            }
        }
    }

    /// The peer's FIN. Without close_notify before it somebody may have cut the session.
    private func ended() {
        guard let failure = tls.endOfInput() else { return fail(.none, "peer closed the session") }
        fail(phase == .handshaking ? .tlsFailure : .upstreamReset, failure.description)
    }

    private func handshake(_ input: UnsafeRawBufferPointer) {
        var rest = input
        let output = UnsafeMutableRawBufferPointer(rebasing: core.scratch[Self.batch..<(2 * Self.batch)])
        while true {
            let step = tls.handshake(input: rest, output: output)
            rest = UnsafeRawBufferPointer(rebasing: rest[step.consumed...])
            if step.produced > 0 { send(UnsafeRawBufferPointer(rebasing: output[..<step.produced])) }
            guard phase == .handshaking else { return }
            switch step.status {
            case .needMore: return
            case .outputFull: continue
            case .failed: return failTLS()
            case .done:
                guard let peer = tls.peerIdentity else { return fail(.peerIdentity, "no peer identity") }
                phase = .open
                core.schedule(timer!, after: limits.pingIntervalNanoseconds)
                opened(peer: peer)
                if isDraining, phase == .open { http2.goAway() }
                scheduleFlush()
                return open(rest)
            }
        }
    }

    private func open(_ input: UnsafeRawBufferPointer) {
        var rest = input
        let plain = UnsafeMutableRawBufferPointer(rebasing: core.scratch[Self.batch..<(2 * Self.batch)])
        while phase == .open {
            let step = tls.open(rest, into: plain)
            rest = UnsafeRawBufferPointer(rebasing: rest[step.consumed...])
            if step.produced > 0 {
                if let failure = http2.receive(UnsafeRawBufferPointer(rebasing: plain[..<step.produced]), now: core.now)
                {
                    // What is left to say, a GOAWAY with the reason, is said before the end.
                    flush()
                    return fail(.protocolError, failure.description)
                }
                scheduleFlush()
            }
            switch step.status {
            case .plaintextFull: continue
            case .needMore:
                if tls.hasPendingOutput { scheduleFlush() }
                return
            case .closed: return fail(.none, "peer closed the session")
            case .failed: return failTLS()
            }
        }
    }

    private func failTLS() {
        guard let failure = tls.failure else { return fail(.tlsFailure, "TLS failed") }
        // The alert that says why is still ours to send, unless records stand before it that the peer does not take:
        // it would have to wait behind a block that may be full already.
        if sealed == nil, !isLeaving { _ = sendPending() }
        fail(failure.meshReason, failure.description)
    }

    // MARK: Sending

    /// Batches what the turn wants to send into one pass.
    func scheduleFlush() {
        guard phase != .closed, let flushWork else { return }
        flushWork.session = self
        core.atEndOfTurn(flushWork)
    }

    fileprivate func performFlush(readsToo: Bool) {
        if readsToo { receive() }
        flush()
        dispatch()
    }

    private func flush() {
        guard phase == .open || phase == .handshaking else { return }
        guard drainSealed() else { return }
        if isLeaving { return endWriting() }
        guard sendPending() else { return }
        while phase == .open {
            let plain = UnsafeMutableRawBufferPointer(rebasing: core.scratch[..<Self.plaintextBatch])
            let count = http2.produce(into: plain)
            if count == 0 { break }
            let room = UnsafeMutableRawBufferPointer(rebasing: core.scratch[(2 * Self.batch)..<(3 * Self.batch)])
            let step = tls.seal(UnsafeRawBufferPointer(rebasing: plain[..<count]), into: room)
            if step.status == .failed { return failTLS() }
            precondition(step.consumed == count, "the room holds every record of one batch")
            if !send(UnsafeRawBufferPointer(rebasing: room[..<step.produced])) { return }
        }
        if let failure = http2.failure { return fail(.protocolError, failure.description) }
        if isDraining && phase == .open && streams.isEmpty && http2.isFinished {
            leave()
        }
    }

    /// Everything is sent, but a close now could destroy what the peer has not read yet: bytes that it sends meanwhile,
    /// such as window updates, would be answered with a reset. So only our direction ends (RFC 8446 §6.1).
    private func leave() {
        isLeaving = true
        if let timer { core.schedule(timer, after: limits.handshakeTimeoutNanoseconds) }
        let room = UnsafeMutableRawBufferPointer(rebasing: core.scratch[(2 * Self.batch)..<(3 * Self.batch)])
        let count = tls.closeNotify(into: room)
        if send(UnsafeRawBufferPointer(rebasing: room[..<count])), phase == .open { endWriting() }
    }

    private func endWriting() {
        if saidEnd { return }
        saidEnd = true
        transport.finishWriting()
    }

    /// Sends what TLS made on its own account: alerts, key updates. False when something was kept.
    private func sendPending() -> Bool {
        while tls.hasPendingOutput {
            let room = UnsafeMutableRawBufferPointer(rebasing: core.scratch[(2 * Self.batch)..<(3 * Self.batch)])
            let count = tls.flush(into: room)
            if !send(UnsafeRawBufferPointer(rebasing: room[..<count])) { return false }
        }
        return true
    }

    /// Writes now what the socket takes and keeps the rest; false when something was kept.
    @discardableResult
    private func send(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var rest = bytes
        if sealed == nil {
            while rest.count > 0 {
                switch transport.write(rest) {
                case .wrote(let count): rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                case .wouldBlock:
                    keep(rest)
                    return false
                case .failed(let failure):
                    fail(.upstreamReset, failure.text)
                    return false
                }
            }
            return true
        }
        keep(rest)
        return false
    }

    private func keep(_ rest: UnsafeRawBufferPointer) {
        if sealed == nil {
            sealed = core.buffers.lease()
            sealedStart = 0
            sealedEnd = 0
        }
        let block = sealed!
        precondition(sealedEnd + rest.count <= block.count, "one batch at a time")
        UnsafeMutableRawBufferPointer(rebasing: block[sealedEnd...]).copyMemory(from: rest)
        sealedEnd += rest.count
    }

    /// True when nothing sealed waits any more.
    private func drainSealed() -> Bool {
        guard let block = sealed else { return true }
        while sealedStart < sealedEnd {
            switch transport.write(UnsafeRawBufferPointer(rebasing: block[sealedStart..<sealedEnd])) {
            case .wrote(let count): sealedStart += count
            case .wouldBlock: return false
            case .failed(let failure):
                fail(.upstreamReset, failure.text)
                return false
            }
        }
        core.buffers.giveBack(block)
        sealed = nil
        return true
    }

    // MARK: Streams

    /// Lets the stream's owner hear of news after the batch.
    func wake(_ stream: TunnelStream) {
        if stream.isAwake { return }
        stream.isAwake = true
        awake.append(stream)
        if !isDispatching { scheduleFlush() }
    }

    /// Tells owners what happened in the batch. Owners may read, write, reset and close streams, and end the session.
    private func dispatch() {
        if isDispatching { return }
        isDispatching = true
        var index = 0
        while index < awake.count {
            let stream = awake[index]
            index += 1
            stream.isAwake = false
            stream.tellOwner()
        }
        awake.removeAll(keepingCapacity: true)
        isDispatching = false
    }

    func remove(_ stream: TunnelStream) {
        guard streams.removeValue(forKey: stream.id) != nil else { return }
        if streams.isEmpty {
            if isDraining { scheduleFlush() }
            becameIdle()
        }
    }

    // MARK: End

    /// Lets open streams finish, takes no new ones, then closes (RFC 9113 §6.8: two-step GOAWAY).
    public func drain() {
        guard phase != .closed, !isDraining else { return }
        isDraining = true
        // A handshake goes on to its end: somebody waits for it with a request.
        guard phase == .open else { return }
        http2.goAway()
        scheduleFlush()
    }

    /// Ends the session and all its streams now.
    public func fail(_ reason: Reason, _ detail: String) {
        guard phase != .closed else { return }
        let wasOpen = phase == .open
        // Nothing was left to be lost.
        let reason = isLeaving ? .none : reason
        phase = .closed
        if let timer { core.cancel(timer) }
        timer = nil
        if wasOpen && sealed == nil && !isLeaving { sayGoodbye() }
        if let sealed { core.buffers.giveBack(sealed) }
        sealed = nil
        transport.close()
        let open = streams
        streams.removeAll()
        for stream in open.values { stream.sessionEnded(reason) }
        closed(reason, detail)
        for stream in open.values where stream.isAwake {
            stream.isAwake = false
            stream.tellOwner()
        }
        if !isDispatching { awake.removeAll() }
    }

    private func sayGoodbye() {
        let room = UnsafeMutableRawBufferPointer(rebasing: core.scratch[(2 * Self.batch)..<(3 * Self.batch)])
        let count = tls.closeNotify(into: room)
        if count > 0 { _ = transport.write(UnsafeRawBufferPointer(rebasing: room[..<count])) }
    }

    fileprivate func timerDue() {
        switch phase {
        case .connecting: fail(.upstreamConnectTimeout, "connect timed out")
        case .handshaking: fail(.handshakeTimeout, "TLS handshake timed out")
        case .open:
            if isLeaving { return fail(.none, "drained") }
            if timerFired() || phase != .open { return }
            if pingSentAt != 0 && core.now - pingSentAt >= limits.pingTimeoutNanoseconds {
                return fail(.upstreamReset, "no answer to HTTP/2 PING")
            }
            if pingSentAt == 0 {
                pingSentAt = core.now
                http2.ping()
                scheduleFlush()
            }
            core.schedule(timer!, after: limits.pingIntervalNanoseconds)
        case .closed: break
        }
    }

    func pingAcknowledged() { pingSentAt = 0 }

    /// Schedules the session's one timer; its owner decides in `timerFired` what it means.
    func armTimer(after nanoseconds: UInt64) {
        if let timer { core.schedule(timer, after: nanoseconds) }
    }
}

private final class SessionFlush: DeferredWork {
    /// Set while queued.
    var session: TunnelSession?
    var readsToo = false

    override func perform() {
        let session = session.take()
        let reads = readsToo
        readsToo = false
        session?.performFlush(readsToo: reads)
    }
}

private final class SessionTimer: Timer {
    private unowned let session: TunnelSession

    init(_ session: TunnelSession) {
        self.session = session
        super.init()
    }

    override func fire() { session.timerDue() }
}
