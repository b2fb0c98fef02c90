public import MeshModel
public import MeshRuntime

/// # One client's HTTP/1.1 connection through a waypoint
///
/// The connection owns its downstream stream, at most one upstream stream in use and a few idle ones. Events only set
/// flags and then call `advance`, which repeats small steps while one of them made progress:
///
///     idle/head ──head complete──▶ exchange ──response done──▶ idle/head
///         │                          │  │
///         └──────── close ───────────┘  └── 101 ──▶ tunnel ──▶ closed
///                     ▼
///                 lingering ──▶ closed
///
/// Requests are answered one at a time and in order; a pipelined one waits in the input block, and the full block stops
/// the client. During an exchange both directions are pumped, so an early response or a server that answers while it
/// reads works; each side is read only as far as the other side takes.
///
/// After anything that could leave the two ends with different ideas of where a message ends, the connection that
/// carried it is not used again: reset when the other end must see an abort, closed in order otherwise.
///
/// Everything happens on one core. Subclassed by whoever wants to keep something with a connection.
open class HTTPProxyConnection: StreamOwner {
    enum Phase {
        case head
        case exchange(HTTPExchange)
        /// Our direction is finished; what the client still sends is read and dropped, since closing a socket with
        /// unread input would destroy the last response on its way (RFC 9112 §9.6).
        case lingering
        case closed
    }

    /// The facts given at the start.
    public final let downstream: HTTPDownstream
    let core: Core
    let limits: Limits
    let codecLimits: HTTPCodecLimits
    let upstreams: HTTPUpstreams
    let client: StreamSide
    let clientCertificate: String?

    var phase = Phase.head
    var parser: HTTPHeadParser
    var idleLegs: [UpstreamLeg] = []
    var isDraining = false
    var lastProgress: UInt64
    /// When the first byte of the head being read arrived.
    var headStart: UInt64?
    var lingerStart: UInt64 = 0
    var lingeredBytes = 0
    private var isAdvancing = false
    private let timer = ConnectionTimer()
    private let resumption = Resumption()

    /// Takes over `stream`, on `core`. Call `start` next.
    public init(
        _ stream: ByteStream, facts downstream: HTTPDownstream, on core: Core, limits: Limits, upstreams: HTTPUpstreams
    ) {
        self.downstream = downstream
        self.core = core
        self.limits = limits
        self.upstreams = upstreams
        codecLimits = HTTPCodecLimits(limits, room: BufferPool.blockBytes - Self.headMargin)
        parser = HTTPHeadParser(.request, limits: codecLimits)
        clientCertificate = downstream.clientCertificate
        lastProgress = core.now
        client = StreamSide(stream, pool: core.buffers)
        super.init()
        stream.owner = self
        timer.connection = self
        resumption.connection = self
    }

    /// A full block always holds more than the largest head, so reading it cannot stall.
    private static let headMargin = 64
    /// Streams to backends kept for the next request.
    static let idleLegLimit = 4
    /// What a client may still send after the last response, and for how long.
    static let lingerBytes = 1024 * 1024
    static let lingerNanoseconds: UInt64 = 2_000_000_000
    /// Responses like 103 before the final one.
    static let interimResponseLimit = 16
    /// Steps in one go; then other connections of the core have their turn.
    private static let stepBudget = 64

    /// Begins to read.
    public func start() { advance() }

    /// Lets the request in progress finish, tells the client to close, and closes an idle connection now.
    public func drain() {
        isDraining = true
        if case .head = phase, client.rawCount == 0, !client.hasOutput { linger() }
        advance()
    }

    /// Resets everything at once; a request in progress is recorded with `reason`.
    public func abort(_ reason: Reason) {
        client.cancel()
        tearDown(reason, resetting: true)
    }

    /// Whether a request is being served.
    public var isBusy: Bool {
        if case .exchange = phase { return true }
        return false
    }

    // MARK: Events

    public override func streamIsReadable(_ stream: ByteStream) {
        guard let side = busySide(of: stream) else { return checkIdleLeg(stream, nil) }
        side.becameReadable()
        advance()
    }

    public override func streamIsWritable(_ stream: ByteStream) {
        guard let side = busySide(of: stream) else {
            idleLegs.first { $0.side.stream === stream }?.side.becameWritable()
            return
        }
        side.becameWritable()
        advance()
    }

    public override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) {
        if stream === client.stream { return tearDown(.downstreamReset, resetting: true) }
        guard let side = busySide(of: stream) else { return checkIdleLeg(stream, failure) }
        side.broke(failure)
        advance()
    }

    /// Nil for an idle leg.
    private func busySide(of stream: ByteStream) -> StreamSide? {
        if stream === client.stream { return client }
        if case .exchange(let exchange) = phase, let leg = exchange.leg, leg.side.stream === stream { return leg.side }
        return nil
    }

    // MARK: Progress

    func advance() {
        if isAdvancing { return }
        isAdvancing = true
        var budget = Self.stepBudget
        while budget > 0, step() {
            lastProgress = core.now
            budget -= 1
        }
        isAdvancing = false
        if case .closed = phase { return }
        client.releaseIdleBlocks()
        if case .exchange(let exchange) = phase { exchange.leg?.side.releaseIdleBlocks() }
        if budget == 0 { core.atEndOfTurn(resumption) }
        core.schedule(timer, after: max(deadline, core.now) - core.now)
    }

    /// One small step; false when nothing can happen before the next event.
    private func step() -> Bool {
        let flushed = mayTakeContentAlong ? false : client.flush()
        if client.writeFailure != nil {
            tearDown(.downstreamReset, resetting: true)
            return false
        }
        switch phase {
        case .head: return stepHead() || flushed
        case .exchange(let exchange): return step(exchange) || flushed
        case .lingering: return stepLingering() || flushed
        case .closed: return false
        }
    }

    /// A response head leaves together with the content that came with it, so `pump` sends it.
    private var mayTakeContentAlong: Bool {
        guard case .exchange(let exchange) = phase, case .body = exchange.response else { return false }
        return true
    }

    /// Finishes our direction after what waits, then waits for the client's end for a moment.
    func linger() {
        phase = .lingering
        lingerStart = core.now
        closeIdleLegs()
    }

    private func stepLingering() -> Bool {
        if client.hasOutput { return false }
        client.finishWriting()
        lingeredBytes += client.rawCount
        client.dropAll()
        if client.hasEnded || lingeredBytes > Self.lingerBytes {
            tearDown(.none, resetting: false)
            return false
        }
        let progressed = client.fill()
        if client.readFailure != nil {
            tearDown(.none, resetting: true)
            return false
        }
        return progressed
    }

    /// Releases everything. `resetting`: the client must see an abort.
    func tearDown(_ reason: Reason, resetting: Bool) {
        if case .closed = phase { return }
        let last = phase
        phase = .closed
        core.cancel(timer)
        timer.connection = nil
        resumption.connection = nil
        if case .exchange(let exchange) = last {
            if exchange.isDialing { upstreams.cancelDial(for: self) }
            exchange.leg?.side.reset()
            exchange.leg = nil
            exchange.record.flags.insert(.incomplete)
            report(exchange, reason)
        }
        closeIdleLegs()
        if resetting { client.reset() } else { client.close() }
        upstreams.connectionClosed(self)
    }

    func report(_ exchange: HTTPExchange, _ reason: Reason) {
        if exchange.record.reason == .none { exchange.record.reason = reason }
        exchange.record.durationNanoseconds = core.now - exchange.record.startNanoseconds
        exchange.record.bytesReceived = exchange.requestBody.contentBytes
        switch exchange.response {
        case .body(let decoder), .tunnel(let decoder): exchange.record.bytesSent = decoder.contentBytes
        default: break
        }
        upstreams.requestFinished(exchange.record)
    }

    // MARK: Time

    private var deadline: UInt64 {
        switch phase {
        case .head:
            if let headStart {
                headStart + limits.httpHeadersTimeoutNanoseconds
            } else {
                lastProgress + limits.httpIdleNanoseconds
            }
        case .exchange: lastProgress + limits.httpIdleNanoseconds
        case .lingering: lingerStart + Self.lingerNanoseconds
        case .closed: .max
        }
    }

    fileprivate func timerFired() {
        if core.now >= deadline {
            switch phase {
            case .head where headStart != nil: refuse(408, .requestTimeout, "the request took too long")
            case .head: linger()
            case .exchange(let exchange): timedOut(exchange)
            case .lingering: return tearDown(.none, resetting: false)
            case .closed: return
            }
        }
        advance()
    }
}

/// Held by the core while armed; the connection is held by its streams.
private final class ConnectionTimer: Timer {
    weak var connection: HTTPProxyConnection?

    override func fire() { connection?.timerFired() }
}

/// Goes on with a connection that had used up its share of the turn.
private final class Resumption: DeferredWork {
    weak var connection: HTTPProxyConnection?

    override func perform() { connection?.advance() }
}
