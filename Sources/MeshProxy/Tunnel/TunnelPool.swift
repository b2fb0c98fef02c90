internal import MeshModel
internal import MeshRuntime
internal import MeshTLS
internal import MeshTelemetry
internal import MeshWire

/// The HBONE sessions that one workload opened, per destination: never shared with another identity.
/// Callers that want the same destination while a session is being made wait for it together and fail together.
final class TunnelPool {
    struct Key: Hashable {
        var peer: SocketAddress
        var identity: SPIFFEID
    }

    private unowned let hub: ProxyCore
    private unowned let workload: LocalWorkload
    /// Starts a connection that is still being made when it returns.
    private let reach: (SocketAddress) throws(SystemError) -> ByteStream
    private var sessions: [Key: [TunnelClient]] = [:]
    /// Sessions that take no new streams and finish what they carry. Held, because each refers to its pool to its end.
    private var retired: [ObjectIdentifier: TunnelClient] = [:]

    init(
        hub: ProxyCore, workload: LocalWorkload, transport: @escaping (SocketAddress) throws(SystemError) -> ByteStream
    ) {
        self.hub = hub
        self.workload = workload
        self.reach = transport
    }

    /// Opens a CONNECT to `tunnel.authority` through a pooled session. The completion comes later, never at once.
    func connect(
        _ tunnel: Tunnel, client: SocketAddress?, service: Service?,
        completion: @escaping (Result<TunnelStream, TunnelDial.Failure>) -> Void
    ) -> TunnelDial {
        let request = ConnectRequest(
            authority: .address(tunnel.authority), baggage: Baggage(workload.workload),
            forwarded: client.map { Forwarded(client: $0, host: service?.name.serviceHost) })
        let dial = TunnelDial(request: request, completion: completion)
        open(dial, key: Key(peer: tunnel.peer, identity: tunnel.identity))
        return dial
    }

    func open(_ dial: TunnelDial, key: Key) {
        if let session = sessions[key]?.first(where: \.hasRoom) { return session.open(dial) }
        guard let context = workload.tls else {
            return later(dial, .session(.identityUnavailable, "the workload has no certificate yet"))
        }
        do {
            let session = TunnelClient(
                key: key, pool: self, core: hub.core, transport: try reach(key.peer), context: context,
                limits: hub.limits, memory: hub.http2Memory)
            sessions[key, default: []].append(session)
            session.open(dial)
            // For this one request only: nothing may stay open when the last connection is over.
            if hub.isDraining { session.retire() }
        } catch {
            later(dial, .session(.upstreamConnectFailed, error.description))
        }
    }

    private func later(_ dial: TunnelDial, _ failure: TunnelDial.Failure) {
        hub.core.atEndOfTurn(LaterFailure(dial, failure))
    }

    /// The session takes no new streams any more, or is over.
    func forget(_ session: TunnelClient) {
        sessions[session.key]?.removeAll { $0 === session }
        if sessions[session.key]?.isEmpty == true { sessions[session.key] = nil }
        retired[ObjectIdentifier(session)] = session.phase == .closed ? nil : session
    }

    /// Lets every session finish what it carries and makes new ones from now on.
    func retireAll() {
        for session in sessions.values.joined() { session.retire() }
    }

    /// Ends every session now.
    func closeAll(_ reason: Reason) {
        for session in sessions.values.joined() { session.fail(reason, "closed") }
        for session in retired.values { session.fail(reason, "closed") }
    }

    var retiredCount: Int { retired.count }
    var sessionCount: Int { sessions.values.reduce(0) { $0 + $1.count } }
}

private final class LaterFailure: DeferredWork {
    private let dial: TunnelDial
    private let failure: TunnelDial.Failure

    init(_ dial: TunnelDial, _ failure: TunnelDial.Failure) {
        self.dial = dial
        self.failure = failure
        super.init()
    }

    override func perform() { dial.finish(.failure(failure)) }
}
