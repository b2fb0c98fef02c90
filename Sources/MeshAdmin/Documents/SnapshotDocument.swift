import MeshModel

/// `/snapshot`: the daemon, what it waits for, and the mesh as it sees it, in the words of the configuration, with
/// what follows from it (who is meshed, which waypoint is in the way, which endpoints a service has).
struct SnapshotDocument: Encodable {
    struct Mesh: Encodable {
        let generation: UInt64
        let trustDomain: String
        let rootNamespace: String
        let mtls: String
        let sameNode: String
        let acceleration: String
        let namespaces: [LabelledDocument]
        let gateways: [LabelledDocument]
        let workloads: [WorkloadDocument]
        let services: [ServiceDocument]
        let routes: [RouteDocument]
        let authorizationPolicies: [AuthorizationPolicyDocument]
        let peerAuthentications: [PeerAuthenticationDocument]
    }

    let daemon: DaemonFacts
    let notReady: [String]
    let mesh: Mesh

    init(_ mesh: MeshSnapshot, daemon: DaemonFacts, notReady: [String]) {
        self.daemon = daemon
        self.notReady = notReady
        self.mesh = Mesh(
            generation: mesh.generation, trustDomain: mesh.settings.trustDomain,
            rootNamespace: mesh.settings.rootNamespace, mtls: mesh.settings.mutualTLS.rawValue,
            sameNode: mesh.settings.sameNode.rawValue, acceleration: mesh.settings.acceleration.rawValue,
            namespaces: mesh.namespaces.values.map { LabelledDocument(name: $0.name, labels: $0.labels) }
                .sorted { $0.name < $1.name },
            gateways: mesh.gateways.map { LabelledDocument(name: $0.name.description, labels: $0.labels) },
            workloads: mesh.workloads.map { WorkloadDocument($0, in: mesh, daemon: daemon) },
            services: mesh.services.map { ServiceDocument($0, in: mesh) }, routes: mesh.routes.map(RouteDocument.init),
            authorizationPolicies: mesh.authorizationPolicies.map(AuthorizationPolicyDocument.init),
            peerAuthentications: mesh.peerAuthentications.map(PeerAuthenticationDocument.init))
    }
}

struct LabelledDocument: Encodable {
    let name: String
    let labels: [String: String]
}

struct WorkloadDocument: Encodable {
    let name: String
    let labels: [String: String]
    let addresses: [String]
    let node: String
    let identity: String
    let `protocol`: String
    let meshed: Bool
    /// This daemon has its listeners inside the workload's network namespace.
    let local: Bool
    let netns: String?
    let ports: [String: UInt16]
    let healthy: Bool
    let acceleration: String
    let waypoint: String?
    let waypointOf: String?

    init(_ workload: Workload, in mesh: MeshSnapshot, daemon: DaemonFacts) {
        name = workload.name.description
        labels = workload.labels
        addresses = workload.addresses.map(\.description)
        node = workload.node
        identity = workload.identity.description
        self.protocol = workload.transport.rawValue
        meshed = mesh.isMeshed(workload)
        local = daemon.kind == .node && mesh.isCaptured(workload, node: daemon.name)
        netns = workload.netns
        ports = workload.namedPorts
        healthy = workload.healthy
        acceleration = mesh.acceleration(of: workload).rawValue
        waypoint = mesh.waypoint(ofWorkload: workload.name)?.description
        waypointOf = workload.waypointOf?.description
    }
}

struct ServiceDocument: Encodable {
    struct Port: Encodable {
        let name: String
        let port: UInt16
        let targetPort: String
        let appProtocol: String

        init(_ port: ServicePort) {
            name = port.name
            self.port = port.port
            targetPort =
                switch port.target {
                case .number(let number): String(number)
                case .name(let name): name
                }
            appProtocol =
                switch port.appProtocol {
                case .tcp: "tcp"
                case .http1: "http"
                }
        }
    }

    let name: String
    let labels: [String: String]
    let addresses: [String]
    let selector: [String: String]
    let ports: [Port]
    let waypoint: String?
    let endpoints: [String]

    init(_ service: Service, in mesh: MeshSnapshot) {
        name = service.name.description
        labels = service.labels
        addresses = service.addresses.map(\.description)
        selector = service.selector
        ports = service.ports.map(Port.init)
        waypoint = mesh.waypoint(ofService: service.name)?.description
        endpoints = mesh.endpoints(ofService: service.name).map(\.name.description)
    }
}

struct RouteDocument: Encodable {
    struct Rule: Encodable {
        let matches: [String]
        let backends: [String]
    }

    let name: String
    let parents: [String]
    let hostnames: [String]
    let rules: [Rule]

    init(_ route: HTTPRoute) {
        name = route.name.description
        parents = route.parents.map { parent in
            parent.port.map { "\(parent.service):\($0)" } ?? parent.service.description
        }
        hostnames = route.hostnames
        rules = route.rules.map { rule in
            Rule(
                matches: rule.matches.map(RouteDocument.text),
                backends: rule.backends.map { "\($0.service):\($0.port) weight \($0.weight)" })
        }
    }

    private static func text(_ match: HTTPRoute.Match) -> String {
        let path =
            switch match.path {
            case .exact(let path): "path = \(path)"
            case .prefix(let path): "path under \(path)"
            }
        let method = match.method.map { ["method = \($0)"] } ?? []
        return ([path] + method + match.headers.map { "header \($0.name) = \($0.value)" }).joined(separator: ", ")
    }
}
