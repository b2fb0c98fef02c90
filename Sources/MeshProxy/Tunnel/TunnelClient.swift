public import MeshModel
internal import MeshRuntime
internal import MeshTLS
internal import MeshWire

/// One CONNECT that somebody wants: waits for a session, then for the answer.
public final class TunnelDial {
    public enum Failure: Error {
        /// The session could not be made, or broke before the answer.
        case session(Reason, String)
        /// The peer answered with another status than 200.
        case status(Int)
    }

    let request: ConnectRequest
    private var completion: ((Result<TunnelStream, Failure>) -> Void)?
    fileprivate weak var session: TunnelClient?
    fileprivate var stream: TunnelStream?
    /// How often it may still be sent again after a peer refused its stream untouched.
    fileprivate var refusalsLeft = 3

    init(request: ConnectRequest, completion: @escaping (Result<TunnelStream, Failure>) -> Void) {
        self.request = request
        self.completion = completion
    }

    func finish(_ result: Result<TunnelStream, Failure>) {
        let completion = completion.take()
        completion?(result)
    }

    var isWanted: Bool { completion != nil }

    /// Nobody waits for the answer any more; no call back follows.
    public func cancel() {
        completion = nil
        session?.abandon(self)
        stream = nil
    }
}

/// The client side of an HBONE session, kept in a workload's pool.
final class TunnelClient: TunnelSession {
    let key: TunnelPool.Key
    private unowned let pool: TunnelPool
    private var waiting: [TunnelDial] = []
    private var answers: [Int32: TunnelDial] = [:]
    private var isRetiring = false
    private var idleSince: UInt64 = 0

    init(
        key: TunnelPool.Key, pool: TunnelPool, core: Core, transport: ByteStream, context: TLSContext, limits: Limits,
        memory: HTTP2Memory
    ) {
        self.key = key
        self.pool = pool
        let events = SessionEvents()
        super.init(
            core: core, transport: transport, tls: TLSSession(client: context, expecting: [key.identity]),
            http2: HTTP2Session(role: .client, settings: HTTP2Settings(limits), events: events, memory: memory),
            events: events, limits: limits, connecting: true)
    }

    /// Whether another stream may be opened here.
    var hasRoom: Bool {
        guard !isRetiring, phase != .closed else { return false }
        let limit =
            phase == .open
            ? min(limits.pooledStreamsPerSession, http2.peerMaxConcurrentStreams)
            : limits.pooledStreamsPerSession
        return streams.count + waiting.count < limit
    }

    func open(_ dial: TunnelDial) {
        dial.session = self
        if phase == .open { send(dial) } else { waiting.append(dial) }
    }

    private func send(_ dial: TunnelDial) {
        let id: Int32
        do {
            id = try http2.request(dial.request.headerFields)
        } catch {
            // The peer allows fewer streams than we assumed, or is leaving: another session takes it.
            dial.session = nil
            if error != .tooManyStreams { retire() }
            return pool.open(dial, key: key)
        }
        dial.stream = TunnelStream(id: id, session: self)
        answers[id] = dial
        scheduleFlush()
    }

    fileprivate func abandon(_ dial: TunnelDial) {
        if let stream = dial.stream {
            answers[stream.id] = nil
            stream.reset()
        } else {
            waiting.removeAll { $0 === dial }
        }
    }

    /// Takes no new streams; closes when the last one ends.
    func retire() {
        guard !isRetiring else { return }
        isRetiring = true
        pool.forget(self)
        if phase == .open { drain() } else if waiting.isEmpty { fail(.drain, "retired before use") }
    }

    override func opened(peer: SPIFFEID) {
        let dials = waiting
        waiting.removeAll()
        for dial in dials where dial.isWanted { send(dial) }
        if isRetiring { drain() }
    }

    override func received(_ fields: HeaderBlock, on id: Int32, endStream: Bool) {
        guard let dial = answers.removeValue(forKey: id), let stream = streams[id] else { return }
        dial.stream = nil
        dial.session = nil
        switch ConnectResponse.status(of: fields) {
        case 200?: finished.append((dial, .success(stream)))
        case let status?:
            stream.reset()
            finished.append((dial, .failure(.status(status))))
        case nil:
            stream.reset()
            finished.append((dial, .failure(.session(.protocolError, "response without a status"))))
        }
        deliverLater()
    }

    private func deliverLater() {
        answerWork.session = self
        core.atEndOfTurn(answerWork)
    }

    override func streamClosed(_ id: Int32, _ errorCode: UInt32) {
        guard let dial = answers.removeValue(forKey: id) else { return }
        dial.stream = nil
        dial.session = nil
        if errorCode == HTTP2ErrorCode.refusedStream, dial.refusalsLeft > 0 {
            // RFC 9113 §8.7: a stream refused so, or left out by a GOAWAY (§6.8), was not looked at; another may be sent.
            dial.refusalsLeft -= 1
            refused.append(dial)
        } else {
            let detail = "the peer ended the CONNECT with \(HTTP2ErrorCode.name(of: errorCode))"
            finished.append((dial, .failure(.session(.upstreamReset, detail))))
        }
        deliverLater()
    }

    /// What other streams, mostly of other sessions, have to carry.
    private var refused: [TunnelDial] = []

    /// Answers wait for the end of the codec's callback before anybody relays.
    private var finished: [(TunnelDial, Result<TunnelStream, TunnelDial.Failure>)] = []
    private let answerWork = AnswerWork()

    fileprivate func deliverAnswers() {
        let batch = finished
        finished.removeAll(keepingCapacity: true)
        for (dial, result) in batch {
            if !dial.isWanted, case .success(let stream) = result { stream.reset() }
            dial.finish(result)
        }
        let again = refused
        refused.removeAll()
        for dial in again where dial.isWanted { pool.open(dial, key: key) }
    }

    override func peerGoesAway() {
        isRetiring = true
        pool.forget(self)
        // Streams above the peer's last id are closed by the codec; the others go on.
        if streams.isEmpty { drain() }
    }

    override func becameIdle() {
        idleSince = core.now
        if isRetiring { drain() }
    }

    override func timerFired() -> Bool {
        guard streams.isEmpty, answers.isEmpty, core.now - idleSince >= limits.poolIdleNanoseconds else { return false }
        retire()
        return true
    }

    override func closed(_ reason: Reason, _ detail: String) {
        pool.forget(self)
        // Where the peer left in order, what it refused is sent elsewhere; else all of it fails with the session.
        let lost = reason == .none ? [] : refused
        if !lost.isEmpty { refused.removeAll() }
        deliverAnswers()
        let dials = waiting + answers.values + lost
        waiting.removeAll()
        answers.removeAll()
        for dial in dials {
            dial.stream = nil
            dial.session = nil
            dial.finish(.failure(.session(reason == .none ? .upstreamReset : reason, detail)))
        }
    }
}

private final class AnswerWork: DeferredWork {
    var session: TunnelClient?

    override func perform() {
        let session = session.take()
        session?.deliverAnswers()
    }
}
