internal import MeshModel
internal import MeshProxy
internal import MeshRuntime

/// A connection through the waypoint that needs no understanding: bytes in, bytes out, decided by policy.
final class WaypointConnection: ProxiedConnection {
    enum Target {
        case service(Service, SocketAddress)
        case workload(Workload, SocketAddress)
    }

    private let waypoint: WaypointCore
    private let local: LocalWorkload
    private let request: TunnelRequest
    private let target: Target
    private var refusalStatus = 503
    /// nil for a workload: its own node decides.
    private var access: WaypointAccess?

    init(hub: WaypointCore, local: LocalWorkload, request: TunnelRequest, target: Target) {
        waypoint = hub
        self.local = local
        self.request = request
        self.target = target
        var record = request.record(for: local, on: hub)
        switch target {
        case .service(let service, let address):
            record.destinationService = service
            record.destination = address
            record.tunnelAuthority = address
        case .workload(let workload, let address):
            record.destinationWorkload = workload
            record.destination = address
            record.tunnelAuthority = address
        }
        super.init(hub: hub, downstream: request.stream, record: record)
    }

    func start() {
        let resolution: Resolution
        switch target {
        case .service(let service, let address):
            let access = WaypointAccess(request, gateway: waypoint.gateway, service: service.name, address: address)
            self.access = access
            if case .deny(let reason, let policy) = access.verdict(hub.snapshot) {
                refusalStatus = 401
                return terminate(reason, policy: policy)
            }
            resolution = hub.snapshot.resolveBackend(
                service.name, port: address.port, family: address.ip, using: &hub.core.random)
        case .workload(let workload, let address):
            let destination = Destination(workload: workload)
            resolution =
                hub.snapshot.isMeshed(workload)
                ? .tunnel(
                    Tunnel(
                        peer: SocketAddress(ip: address.ip, port: ProxyPort.tunnel), authority: address,
                        identity: workload.identity, workload: workload, viaWaypoint: nil), destination)
                : .plain(address, destination)
        }
        record.note(resolution)
        dial = local.dial(resolution, client: record.source, completion: dialled)
    }

    override func willRelay() { request.accept(baggage: nil) }

    override func refuseDownstream(_ reason: Reason) { request.refuse(status: refusalStatus) }

    override func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? {
        guard let access, case .deny(_, let policy) = access.verdict(snapshot) else { return nil }
        return (.policyChanged, policy)
    }
}
