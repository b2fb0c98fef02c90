internal import MeshHTTP
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import MeshWire

/// A waypoint's core: CONNECTs for the services and workloads bound to its gateway, terminated as the waypoint's own
/// identity, decided by the policies attached to them, and carried on to an endpoint through the mesh.
final class WaypointCore: ProxyCore {
    let gateway: ObjectName
    private var http: [ObjectName: WaypointHTTP] = [:]

    init(gateway: ObjectName, core: Core, snapshot: MeshSnapshot, telemetry: CoreTelemetry) {
        self.gateway = gateway
        super.init(
            core: core, nodeName: "", snapshot: snapshot, telemetry: telemetry, applicationLeg: nil)
    }

    override func handle(_ request: TunnelRequest, for local: LocalWorkload) {
        guard case .address(let authority) = request.connect.authority else {
            return refuse(
                request, for: local, status: 400, .badAuthority,
                "authority \(request.connect.authority) is not an address")
        }
        if let service = snapshot.service(at: authority.ip) {
            serve(request, local, service, authority)
        } else if let workload = snapshot.workload(at: authority.ip),
            snapshot.waypoint(ofWorkload: workload.name) == gateway
        {
            WaypointConnection(hub: self, local: local, request: request, target: .workload(workload, authority))
                .start()
        } else {
            refuse(request, for: local, status: 404, .badAuthority, "\(authority) is not behind waypoint \(gateway)")
        }
    }

    private func serve(_ request: TunnelRequest, _ local: LocalWorkload, _ service: Service, _ authority: SocketAddress)
    {
        guard snapshot.waypoint(ofService: service.name) == gateway else {
            return refuse(
                request, for: local, status: 404, .badAuthority,
                "service \(service.name) is not behind waypoint \(gateway)")
        }
        guard let port = service.ports.first(where: { $0.port == authority.port }) else {
            return refuse(
                request, for: local, status: 404, .unknownPort, "service \(service.name) has no port \(authority.port)")
        }
        switch port.appProtocol {
        case .tcp:
            WaypointConnection(
                hub: self, local: local, request: request, target: .service(service, authority)
            ).start()
        case .http1:
            connections(for: local).serve(request, service: service.name, address: authority)
        }
    }

    private func connections(for local: LocalWorkload) -> WaypointHTTP {
        if let known = http[local.workload.name] { return known }
        let made = WaypointHTTP(hub: self, local: local)
        http[local.workload.name] = made
        return made
    }

    // MARK: Changes reach HTTP connections too

    override func install(_ snapshot: MeshSnapshot) {
        super.install(snapshot)
        for connections in http.values { connections.decideAgain(snapshot) }
    }

    override func drain() {
        super.drain()
        for connections in http.values { connections.drain() }
    }

    override func closeAll(_ reason: Reason) {
        for connections in http.values { connections.abortAll(reason) }
        super.closeAll(reason)
    }

    override var openConnections: Int { connections.count + http.values.reduce(0) { $0 + $1.count } }
}
