public import MeshModel
internal import MeshRuntime
internal import MeshTLS
public import MeshWire

/// A CONNECT that arrived on a verified session and waits for an answer: exactly one of `accept` and `refuse`.
public final class TunnelRequest {
    public let connect: ConnectRequest
    public let peer: SPIFFEID
    public let session: TunnelServer
    /// Carries the connection once the request is accepted.
    public let stream: TunnelStream
    private var isAnswered = false

    init(_ connect: ConnectRequest, peer: SPIFFEID, session: TunnelServer, stream: TunnelStream) {
        self.connect = connect
        self.peer = peer
        self.session = session
        self.stream = stream
    }

    /// Answers 200; the stream now carries the connection.
    public func accept(baggage: Baggage?) {
        answer(ConnectResponse(status: 200, baggage: baggage), endStream: false)
    }

    /// Answers with an error status and ends the stream.
    public func refuse(status: Int) {
        answer(ConnectResponse(status: status, baggage: nil), endStream: true)
        stream.refused()
    }

    private func answer(_ response: ConnectResponse, endStream: Bool) {
        precondition(!isAnswered, "a CONNECT is answered once")
        isAnswered = true
        session.respond(response, on: stream, endStream: endStream)
    }
}

/// The server side of an HBONE session: a peer's node proxy, waypoint or gateway speaks to one of our workloads.
public final class TunnelServer: TunnelSession {
    /// Gets each request between batches; must answer it now or later.
    private let handler: (TunnelRequest) -> Void
    private let whenOpened: (TunnelServer) -> Void
    private let whenEnded: (TunnelServer, Reason, String) -> Void
    private var requests: [TunnelRequest] = []
    private let requestWork = RequestWork()
    private(set) var sawRequest = false
    private var openedAt: UInt64 = 0
    public private(set) var peer: SPIFFEID?
    /// Our own end and the peer's, also after the socket is gone.
    public let localAddress: SocketAddress
    public let remoteAddress: SocketAddress
    let acceptedAt: UInt64

    init(
        core: Core, transport: ByteStream, from remote: SocketAddress, to local: SocketAddress, context: TLSContext,
        limits: Limits, memory: HTTP2Memory,
        opened: @escaping (TunnelServer) -> Void, handler: @escaping (TunnelRequest) -> Void,
        malformed: @escaping (TunnelServer, Reason, String) -> Void,
        ended: @escaping (TunnelServer, Reason, String) -> Void
    ) {
        self.handler = handler
        whenOpened = opened
        whenMalformed = malformed
        whenEnded = ended
        localAddress = local
        remoteAddress = remote
        acceptedAt = core.now
        let events = SessionEvents()
        super.init(
            core: core, transport: transport, tls: TLSSession(server: context),
            http2: HTTP2Session(role: .server, settings: HTTP2Settings(limits), events: events, memory: memory),
            events: events, limits: limits, connecting: false)
    }

    /// Begins to read: the first bytes may be there already.
    func start() { receive() }

    public override func opened(peer: SPIFFEID) {
        self.peer = peer
        whenOpened(self)
        openedAt = core.now
        armTimer(after: min(limits.firstRequestTimeoutNanoseconds, limits.pingIntervalNanoseconds))
    }

    public override func received(_ fields: HeaderBlock, on id: Int32, endStream: Bool) {
        guard streams[id] == nil, let peer else { return }  // trailers
        sawRequest = true
        let stream = TunnelStream(id: id, session: self)
        do {
            let connect = try ConnectRequest(fields)
            requests.append(TunnelRequest(connect, peer: peer, session: self, stream: stream))
            requestWork.session = self
            core.atEndOfTurn(requestWork)
        } catch {
            malformed.append((stream, error))
            requestWork.session = self
            core.atEndOfTurn(requestWork)
        }
    }

    public override func receivedMalformed() {
        sawRequest = true
        rejected += 1
        requestWork.session = self
        core.atEndOfTurn(requestWork)
    }

    /// Requests that the codec has answered already.
    private var rejected = 0

    /// Requests that never became one, with what was wrong.
    private var malformed: [(TunnelStream, ConnectRequestError)] = []
    private let whenMalformed: (TunnelServer, Reason, String) -> Void

    fileprivate func deliverRequests() {
        let batch = requests
        requests.removeAll(keepingCapacity: true)
        for request in batch { handler(request) }
        let bad = malformed
        malformed.removeAll()
        for (stream, error) in bad {
            respond(ConnectResponse(status: error.status, baggage: nil), on: stream, endStream: true)
            stream.refused()
            whenMalformed(self, error == .headersTooLarge ? .headersTooLarge : .badAuthority, error.description)
        }
        for _ in 0..<rejected {
            whenMalformed(self, .badAuthority, "a CONNECT without :authority, or with :scheme or :path")
        }
        rejected = 0
    }

    func respond(_ response: ConnectResponse, on stream: TunnelStream, endStream: Bool) {
        guard phase == .open else { return }
        http2.respond(stream: stream.id, headers: response.headerFields, endStream: endStream)
        scheduleFlush()
    }

    public override func timerFired() -> Bool {
        guard !sawRequest, core.now - openedAt >= limits.firstRequestTimeoutNanoseconds else { return false }
        fail(.requestTimeout, "no CONNECT after the handshake")
        return true
    }

    public override func closed(_ reason: Reason, _ detail: String) { whenEnded(self, reason, detail) }
}

private final class RequestWork: DeferredWork {
    var session: TunnelServer?

    override func perform() {
        let session = session.take()
        session?.deliverRequests()
    }
}
