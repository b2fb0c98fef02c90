internal import MeshModel
internal import MeshRuntime

/// A connection in clear text from outside the mesh to a local workload: policy without an identity, then the
/// application, from the client's own address.
final class PlaintextConnection: ProxiedConnection {
    private let target: LocalWorkload
    private let authorization: AuthorizationRequest

    init(hub: ProxyCore, target: LocalWorkload, downstream: SocketStream) {
        self.target = target
        var record = ConnectionRecord(
            direction: .inbound, source: SocketAddress(downstream.remoteAddress),
            destination: SocketAddress(downstream.localAddress), startedAt: hub.core.now)
        record.destinationWorkload = target.workload
        record.sourceWorkload = hub.snapshot.workload(at: record.source.ip)
        authorization = AuthorizationRequest(
            destination: target.workload, address: record.destination, sourceIP: record.source.ip, identity: nil)
        super.init(hub: hub, downstream: downstream, record: record)
    }

    func start() {
        if ProxyPort.isRecursive(record.destination.port) { return terminate(.recursiveCall) }
        if case .deny(let reason, let policy) = hub.snapshot.authorize(authorization) {
            return terminate(reason, policy: policy)
        }
        dial = target.dialApplication(record.destination, as: record.source, apart: true, completion: dialled)
    }

    override func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? {
        snapshot.authorize(authorization).ending
    }
}
