internal import MeshModel
internal import MeshProxy

/// Who asks a waypoint for what: decided when a connection arrives, and again when policy changes.
struct WaypointAccess {
    let gateway: ObjectName
    let service: ObjectName
    let address: SocketAddress
    let source: SocketAddress
    let identity: SPIFFEID

    init(_ request: TunnelRequest, gateway: ObjectName, service: ObjectName, address: SocketAddress) {
        self.gateway = gateway
        self.service = service
        self.address = address
        source = request.session.remoteAddress
        identity = request.peer
    }

    /// What the policies attached to the service or to the gateway (`targetRefs`) say.
    func verdict(_ snapshot: MeshSnapshot) -> Verdict {
        snapshot.authorize(
            atWaypoint: gateway, service: service, address: address, sourceIP: source.ip, identity: identity)
    }
}
