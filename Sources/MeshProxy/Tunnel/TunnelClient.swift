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

    /// A CONNECT that is reset before its answer has failed now, not when its time is up.
    override func streamClosed(_ id: Int32, _ errorCode: UInt32) {
        guard let dial = answers.removeValue(forKey: id) else { return }
        dial.stream = nil
        dial.session = nil
        // The peer was leaving and has not looked at the request: another session takes it (RFC 9113 §8.7).
        if isRetiring, errorCode == HTTP2ErrorCode.refusedStream { return pool.open(dial, key: key) }
        finished.append((dial, .failure(.session(.upstreamReset, "stream reset before the answer, code \(errorCode)"))))
        deliverLater()
    }

    private func deliverLater() {
        answerWork.session = self
        core.atEndOfTurn(answerWork)
    }

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
        deliverAnswers()
        let dials = waiting + answers.values
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
