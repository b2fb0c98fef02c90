public import MeshModel

/// Everything one reading of the configuration says, as plain values. Names and addresses are unique.
public struct ObjectSet: Hashable, Sendable {
    public var settings = MeshSettings()
    public var namespaces: [Namespace] = []
    public var workloads: [Workload] = []
    public var services: [Service] = []
    public var gateways: [Gateway] = []
    public var routes: [HTTPRoute] = []
    public var authorizationPolicies: [AuthorizationPolicy] = []
    public var peerAuthentications: [PeerAuthentication] = []

    public init() {}

    /// The snapshot of these objects.
    public func makeSnapshot(generation: UInt64) -> MeshSnapshot {
        MeshSnapshot(
            generation: generation, settings: settings,
            namespaces: Dictionary(namespaces.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first }),
            workloads: workloads, services: services, gateways: gateways, routes: routes,
            authorizationPolicies: authorizationPolicies, peerAuthentications: peerAuthentications)
    }

    /// How many objects of each kind, in the order of the kinds' names. Mesh is counted by the reading.
    var counts: [(kind: Kind, count: Int)] {
        [
            (.authorizationPolicy, authorizationPolicies.count), (.gateway, gateways.count),
            (.httpRoute, routes.count), (.namespace, namespaces.count),
            (.peerAuthentication, peerAuthentications.count), (.service, services.count),
            (.workload, workloads.count),
        ]
    }
}

extension Namespace: Identifiable {
    public var id: String { name }
}

extension Workload: Identifiable {
    public var id: ObjectName { name }
}

extension Service: Identifiable {
    public var id: ObjectName { name }
}

extension Gateway: Identifiable {
    public var id: ObjectName { name }
}

extension HTTPRoute: Identifiable {
    public var id: ObjectName { name }
}

extension AuthorizationPolicy: Identifiable {
    public var id: ObjectName { name }
}

extension PeerAuthentication: Identifiable {
    public var id: ObjectName { name }
}

/// The live objects of a source, for who wants to follow one kind instead of whole snapshots.
public struct ConfigurationCollections: Sendable {
    public let namespaces = Collection<Namespace>()
    public let workloads = Collection<Workload>()
    public let services = Collection<Service>()
    public let gateways = Collection<Gateway>()
    public let routes = Collection<HTTPRoute>()
    public let authorizationPolicies = Collection<AuthorizationPolicy>()
    public let peerAuthentications = Collection<PeerAuthentication>()

    public init() {}

    public func replaceAll(with objects: ObjectSet) {
        namespaces.replaceAll(with: objects.namespaces)
        workloads.replaceAll(with: objects.workloads)
        services.replaceAll(with: objects.services)
        gateways.replaceAll(with: objects.gateways)
        routes.replaceAll(with: objects.routes)
        authorizationPolicies.replaceAll(with: objects.authorizationPolicies)
        peerAuthentications.replaceAll(with: objects.peerAuthentications)
    }
}
