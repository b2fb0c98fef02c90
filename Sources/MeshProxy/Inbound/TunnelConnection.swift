internal import MeshModel
internal import MeshRuntime
internal import MeshWire

/// A CONNECT from a peer in the mesh to a local workload's application: policy on the proven identity, then the
/// application, from the client's own address, then 200 and relay.
final class TunnelConnection: ProxiedConnection {
    private let target: LocalWorkload
    private let request: TunnelRequest
    private let authorization: AuthorizationRequest

    /// `address` is the workload's own address and the port of the authority.
    init(hub: ProxyCore, target: LocalWorkload, request: TunnelRequest, address: SocketAddress) {
        self.target = target
        self.request = request
        let client = SocketAddress(request.session.socket.remoteAddress)
        var record = ConnectionRecord(
            direction: .inbound, source: client, destination: address, startedAt: hub.core.now)
        record.tunnelAuthority = address
        record.sourceWorkload = hub.snapshot.workload(at: client.ip)
        record.sourceIdentity = request.peer
        record.destinationWorkload = target.workload
        record.destinationIdentity = target.workload.identity
        record.isMutualTLS = true
        authorization = AuthorizationRequest(
            destination: target.workload, address: address, sourceIP: client.ip, identity: request.peer)
        super.init(hub: hub, downstream: request.stream, record: record)
    }

    func start() {
        if MeshPorts.isOurs(record.destination.port) { return refuse(503, .recursiveCall) }
        if case .deny(let reason, let policy) = hub.snapshot.authorize(authorization) {
            return refuse(401, reason, policy: policy)
        }
        do {
            setDeadline(after: hub.limits.connectTimeoutNanoseconds)
            await(try target.connectApplication(record.destination, as: record.source))
        } catch {
            refuse(503, .upstreamConnectFailed, detail: error.description)
        }
    }

    override func upstreamConnected() {
        guard let upstream else { return }
        _ = request.accept(baggage: Baggage(target.workload))
        relay(to: upstream)
    }

    override func deadlineReached() { refuse(503, .upstreamConnectTimeout, detail: "the application did not answer") }

    private func refuse(_ status: Int, _ reason: Reason, policy: ObjectName? = nil, detail: String? = nil) {
        refusalStatus = status
        terminate(reason, policy: policy, detail: detail)
    }

    private var refusalStatus = 503

    override func refuseDownstream(_ reason: Reason) { request.refuse(status: refusalStatus) }

    override func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? {
        var request = authorization
        if let current = snapshot.workload(named: request.destination.name) { request.destination = current }
        guard case .deny(_, let policy) = snapshot.authorize(request) else { return nil }
        return (.policyChanged, policy)
    }
}
