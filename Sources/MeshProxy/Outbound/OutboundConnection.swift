internal import MeshModel
internal import MeshRuntime

/// A connection that a local workload opened and that capture brought to us: resolve, dial, relay.
final class OutboundConnection: ProxiedConnection {
    private let source: LocalWorkload
    private var dial: TunnelDial?
    /// Set when the destination's policy is ours to enforce, because no other proxy sees the connection (T0).
    private var authorization: AuthorizationRequest?

    init(hub: ProxyCore, source: LocalWorkload, downstream: SocketStream) {
        self.source = source
        var record = ConnectionRecord(
            direction: .outbound, source: SocketAddress(downstream.remoteAddress),
            destination: SocketAddress(downstream.localAddress), startedAt: hub.core.now)
        record.sourceWorkload = source.workload
        record.sourceIdentity = source.workload.identity
        super.init(hub: hub, downstream: downstream, record: record)
    }

    func start() {
        let target = record.destination
        switch hub.snapshot.resolve(from: source.workload, to: target, node: hub.nodeName, using: &hub.core.random) {
        case .passthrough(let address): connect(address)
        case .plain(let address, let destination):
            note(destination)
            connect(address)
        case .local(let address, let workload, let destination):
            note(destination)
            connectLocally(address, workload)
        case .tunnel(let tunnel, let destination):
            note(destination)
            record.tunnelAuthority = tunnel.authority
            setDeadline(after: hub.limits.tunnelResponseTimeoutNanoseconds)
            dial = source.pool.connect(tunnel, client: record.source, service: destination.service) { [self] result in
                dial = nil
                tunnelAnswered(result, identity: tunnel.identity)
            }
        case .refuse(let reason, let destination):
            note(destination)
            terminate(reason)
        }
    }

    private func note(_ destination: Destination) {
        record.destinationService = destination.service
        record.destinationWorkload = destination.workload
    }

    private func connect(_ address: SocketAddress) {
        dialing { () throws(SystemError) in try source.connect(to: address) }
    }

    private func connectLocally(_ address: SocketAddress, _ workload: Workload) {
        guard let destination = hub.workloads[workload.name] else {
            return terminate(.noHealthyUpstream, detail: "the destination workload is not running on this node yet")
        }
        let request = AuthorizationRequest(
            destination: workload, address: address, sourceIP: record.source.ip, identity: source.workload.identity)
        if case .deny(let reason, let policy) = hub.snapshot.authorize(request) {
            return terminate(reason, policy: policy)
        }
        authorization = request
        record.destinationIdentity = workload.identity
        dialing { () throws(SystemError) in try destination.connectApplication(address, as: record.source) }
    }

    private func dialing(_ open: () throws(SystemError) -> SocketStream) {
        do {
            setDeadline(after: hub.limits.connectTimeoutNanoseconds)
            await(try open())
        } catch {
            terminate(.upstreamConnectFailed, detail: error.description)
        }
    }

    override func upstreamConnected() {
        if let upstream { relay(to: upstream) }
    }

    private func tunnelAnswered(_ result: Result<TunnelStream, TunnelDial.Failure>, identity: SPIFFEID) {
        switch result {
        case .success(let stream):
            record.destinationIdentity = identity
            record.isMutualTLS = true
            relay(to: stream)
        case .failure(let failure):
            terminate(failure.reason, detail: failure.text)
        }
    }

    override func deadlineReached() { terminate(.upstreamConnectTimeout, detail: "no answer in time") }

    override func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? {
        guard var request = authorization else { return nil }
        if let current = snapshot.workload(named: request.destination.name) { request.destination = current }
        guard case .deny(_, let policy) = snapshot.authorize(request) else { return nil }
        return (.policyChanged, policy)
    }

    override func ended() {
        dial?.cancel()
        dial = nil
    }
}

extension TunnelDial.Failure {
    /// The one word for the log and the metric.
    public var reason: Reason {
        switch self {
        case .session(let reason, _): reason
        case .timedOut: .upstreamConnectTimeout
        case .status(401), .status(403): .policyDeny
        case .status(404): .routeNotFound
        case .status(400): .badAuthority
        case .status(503): .upstreamRefused
        case .status(504): .upstreamConnectTimeout
        case .status: .protocolError
        }
    }

    public var text: String {
        switch self {
        case .session(_, let detail): detail
        case .timedOut: "no answer in time"
        case .status(let status): "http status: \(status)"
        }
    }
}
