internal import MeshModel
internal import MeshRuntime
internal import MeshWire

/// A CONNECT from a peer in the mesh to a local workload's application: policy on the proven identity, then the
/// application, from the client's own address, then 200 and relay.
final class TunnelConnection: ProxiedConnection {
    private let target: LocalWorkload
    private let request: TunnelRequest
    private let authorization: AuthorizationRequest
    private var refusalStatus = 503

    /// `address` is the workload's own address and the port of the authority.
    init(hub: ProxyCore, target: LocalWorkload, request: TunnelRequest, address: SocketAddress) {
        self.target = target
        self.request = request
        var record = request.record(for: target, on: hub)
        record.destination = address
        record.tunnelAuthority = address
        record.destinationIdentity = target.workload.identity
        authorization = AuthorizationRequest(
            destination: target.workload, address: address, sourceIP: record.source.ip, identity: request.peer)
        super.init(hub: hub, downstream: request.stream, record: record)
    }

    func start() {
        if ProxyPort.isRecursive(record.destination.port) { return terminate(.recursiveCall) }
        if case .deny(let reason, let policy) = hub.snapshot.authorize(authorization) {
            refusalStatus = 401
            return terminate(reason, policy: policy)
        }
        dial = target.dialApplication(record.destination, as: record.source, completion: dialled)
    }

    override func willRelay() { request.accept(baggage: Baggage(target.workload)) }

    override func refuseDownstream(_ reason: Reason) { request.refuse(status: refusalStatus) }

    override func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? {
        snapshot.authorize(authorization).ending
    }
}

extension TunnelRequest {
    /// The record of a connection that this request asks `local` for.
    public func record(for local: LocalWorkload, on hub: ProxyCore) -> ConnectionRecord {
        var record = ConnectionRecord(
            direction: .inbound, source: session.remoteAddress, destination: session.localAddress,
            startedAt: hub.core.now)
        record.sourceWorkload = hub.snapshot.workload(at: record.source.ip)
        record.sourceIdentity = peer
        record.destinationWorkload = local.workload
        record.isMutualTLS = true
        return record
    }
}
