internal import MeshModel
internal import MeshRuntime

/// A connection that a local workload opened and that capture brought to us: resolve, dial, relay.
final class OutboundConnection: ProxiedConnection {
    private let source: LocalWorkload
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
        let resolution = hub.snapshot.resolve(
            from: source.workload, to: target, node: hub.nodeName, using: &hub.core.random)
        record.note(resolution)
        if case .local(let address, let workload, _) = resolution { return dialLocally(address, workload) }
        dial = source.dial(resolution, client: record.source, completion: dialled)
    }

    private func dialLocally(_ address: SocketAddress, _ workload: Workload) {
        guard let destination = hub.workloads[workload.name] else {
            return terminate(.noHealthyUpstream, detail: "the destination workload is not running on this node yet")
        }
        let request = AuthorizationRequest(
            destination: workload, address: address, sourceIP: record.source.ip, identity: source.workload.identity)
        record.isSameNode = true
        if case .deny(let reason, let policy) = hub.snapshot.authorize(request) {
            return terminate(reason, policy: policy)
        }
        authorization = request
        record.destinationIdentity = workload.identity
        // The client may have direct connections to the same address, which the proxy does not know.
        dial = destination.dialApplication(address, as: record.source, apart: true, completion: dialled)
    }

    override func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? {
        authorization.flatMap {
            snapshot.authorizeOpen(
                $0, from: source.workload, isByService: record.destinationService != nil
            ).ending
        }
    }
}

extension Verdict {
    /// For a connection that was allowed before: why it is to be closed now, and the policy that says so.
    var ending: (reason: Reason, policy: ObjectName?)? {
        if case .deny(_, let policy) = self { (.policyChanged, policy) } else { nil }
    }
}

extension TunnelDial.Failure {
    /// The one word for the log and the metric.
    var reason: Reason {
        switch self {
        case .session(let reason, _): reason
        case .status(401), .status(403): .policyDeny
        case .status(404): .routeNotFound
        case .status(400): .badAuthority
        case .status(503): .upstreamRefused
        case .status(504): .upstreamConnectTimeout
        case .status: .protocolError
        }
    }

    /// Nobody answered: the peer's proxy or waypoint is not there, as opposed to one that said no.
    var isUnreachable: Bool {
        switch reason {
        case .upstreamRefused, .upstreamConnectFailed, .upstreamConnectTimeout, .handshakeTimeout, .upstreamReset:
            if case .session = self { true } else { false }
        default: false
        }
    }

    var text: String {
        switch self {
        case .session(_, let detail): detail
        case .status(let status): "http status: \(status)"
        }
    }
}
