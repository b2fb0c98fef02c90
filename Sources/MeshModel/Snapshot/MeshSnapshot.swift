/// The whole mesh as one node knows it at one moment: immutable, indexed once when made, shared by every core.
///
/// Every decision of the data plane is a function of a snapshot (`resolve`, `authorize`, `decideHTTP`) and costs a few
/// dictionary lookups; the work that grows with the mesh (label selectors, waypoint bindings, policy sets, route
/// precedence) is done in `init`, on the control thread.
///
/// Names and addresses are expected to be unique: sources refuse duplicates. Where they are not, the first one wins.
public final class MeshSnapshot: Sendable {
    /// Grows with every change; live connections are decided again when it does.
    public let generation: UInt64
    public let settings: MeshSettings
    public let namespaces: [String: Namespace]
    public let workloads: [Workload]
    public let services: [Service]
    public let gateways: [Gateway]
    public let routes: [HTTPRoute]
    public let authorizationPolicies: [AuthorizationPolicy]
    public let peerAuthentications: [PeerAuthentication]

    let index: SnapshotIndex
    let policies: PolicyIndex
    let httpRoutes: HTTPRouteIndex

    public init(
        generation: UInt64 = 0, settings: MeshSettings = MeshSettings(), namespaces: [String: Namespace] = [:],
        workloads: [Workload] = [], services: [Service] = [], gateways: [Gateway] = [], routes: [HTTPRoute] = [],
        authorizationPolicies: [AuthorizationPolicy] = [], peerAuthentications: [PeerAuthentication] = []
    ) {
        self.generation = generation
        self.settings = settings
        self.namespaces = namespaces
        self.workloads = workloads
        self.services = services
        self.gateways = gateways
        self.routes = routes
        self.authorizationPolicies = authorizationPolicies
        self.peerAuthentications = peerAuthentications
        index = SnapshotIndex(namespaces: namespaces, workloads: workloads, services: services, gateways: gateways)
        policies = PolicyIndex(
            settings: settings, workloads: workloads, authorizationPolicies: authorizationPolicies,
            peerAuthentications: peerAuthentications)
        httpRoutes = HTTPRouteIndex(routes: routes, services: services)
    }
}

extension MeshSnapshot {
    public func workload(at address: IPAddress) -> Workload? {
        index.workloadByAddress[address].map { workloads[$0] }
    }

    public func workload(named name: ObjectName) -> Workload? {
        index.workloadByName[name].map { workloads[$0] }
    }

    /// The service that owns this virtual address.
    public func service(at address: IPAddress) -> Service? {
        index.serviceByAddress[address].map { services[$0] }
    }

    public func service(named name: ObjectName) -> Service? {
        index.serviceByName[name].map { services[$0] }
    }

    public func gateway(named name: ObjectName) -> Gateway? {
        index.gatewayByName[name].map { gateways[$0] }
    }

    /// The workloads this node captures: they name a network namespace, are meshed, and are not waypoints.
    public func localWorkloads(node: String) -> [Workload] {
        index.capturedByNode[node, default: []].map { workloads[$0] }
    }

    /// Whether the workload is reached with mutual TLS: `protocol: TLS` and not taken out by
    /// `istio.io/dataplane-mode: none` on itself or, unless it says otherwise itself, on its Namespace.
    /// On a waypoint the label only means that it is not captured; it speaks HBONE all the same.
    public func isMeshed(_ workload: Workload) -> Bool {
        SnapshotIndex.isMeshed(workload, in: namespaces)
    }

    /// Whether the node proxy of `node` has its listeners inside this workload's network namespace.
    public func isCaptured(_ workload: Workload, node: String) -> Bool {
        workload.node == node && workload.netns != nil && workload.waypointOf == nil && isMeshed(workload)
    }

    /// The waypoint that traffic addressed to this service must pass, whether or not it has healthy instances.
    public func waypoint(ofService name: ObjectName) -> ObjectName? {
        index.serviceByName[name].flatMap { index.serviceWaypoint[$0] }
    }

    /// The waypoint that traffic addressed to this workload's own addresses must pass.
    public func waypoint(ofWorkload name: ObjectName) -> ObjectName? {
        index.workloadByName[name].flatMap { index.workloadWaypoint[$0] }
    }

    /// Healthy workloads that stand behind a service, whatever the port.
    public func endpoints(ofService name: ObjectName) -> [Workload] {
        index.serviceByName[name].map { index.endpoints[$0].map { workloads[$0] } } ?? []
    }
}
