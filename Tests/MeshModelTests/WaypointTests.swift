import MeshModel
import Testing

@Suite("What goes through a waypoint")
struct WaypointTests {
    typealias Base = ResolveTests

    struct Case: Sendable, CustomTestStringConvertible {
        var service: [String: String] = [:]
        var namespace: [String: String] = [:]
        var workload: [String: String] = [:]
        /// nil: there is no such Gateway.
        var waypointFor: String?? = .some(nil)
        var serviceBound: Bool
        var workloadBound: Bool
        var testDescription: String { "svc \(service) ns \(namespace) pod \(workload) for \(waypointFor as Any)" }
    }

    static let use = [Labels.useWaypoint: "wp"]
    static let none = [Labels.useWaypoint: "none"]

    @Test(
        "Labels bind: the object's before its namespace's, as far as the Gateway takes them",
        arguments: [
            Case(serviceBound: false, workloadBound: false),
            Case(service: use, serviceBound: true, workloadBound: false),
            Case(namespace: use, serviceBound: true, workloadBound: false),
            Case(service: none, namespace: use, serviceBound: false, workloadBound: false),
            Case(namespace: use, workload: none, waypointFor: "all", serviceBound: true, workloadBound: false),
            Case(namespace: use, waypointFor: "all", serviceBound: true, workloadBound: true),
            Case(namespace: use, waypointFor: "workload", serviceBound: false, workloadBound: true),
            Case(namespace: use, waypointFor: "none", serviceBound: false, workloadBound: false),
            Case(service: use, workload: use, waypointFor: "service", serviceBound: true, workloadBound: false),
            Case(workload: use, waypointFor: "workload", serviceBound: false, workloadBound: true),
            Case(workload: use, serviceBound: false, workloadBound: false),
            // Without the Gateway, what was bound stays bound and is refused.
            Case(service: use, waypointFor: nil, serviceBound: true, workloadBound: false),
            Case(namespace: use, waypointFor: nil, serviceBound: true, workloadBound: false),
            Case(workload: use, waypointFor: nil, serviceBound: false, workloadBound: true),
        ])
    func bindings(_ given: Case) {
        var service = Base.services[1]
        service.labels = given.service
        var far = Base.far
        far.labels.merge(given.workload) { $1 }
        let labels = given.waypointFor.map { $0.map { [Labels.waypointFor: $0] } ?? [:] }
        let mesh = Base().mesh(
            namespace: given.namespace, services: [service], gateway: labels,
            workloads: [Base.client, far, Base.waypoint])
        #expect((mesh.waypoint(ofService: service.name) != nil) == given.serviceBound)
        #expect((mesh.waypoint(ofWorkload: far.name) != nil) == given.workloadBound)
        for (destination, bound) in [("10.96.0.2:80", given.serviceBound), ("10.2.0.1:80", given.workloadBound)] {
            guard case .tunnel(let tunnel, let known) = Base().resolve(mesh, destination) else {
                Issue.record("no tunnel")
                continue
            }
            #expect(tunnel.viaWaypoint == (bound ? name("default/wp") : nil))
            if bound {
                // The authority is what the application asked for; the identity is the waypoint's.
                #expect(tunnel.authority == socket(destination) && tunnel.peer == socket("10.2.0.9:15008"))
                #expect(tunnel.identity == Base.waypoint.identity && tunnel.workload == Base.waypoint)
                #expect(known.service != nil || known.workload == far)
            }
        }
    }

    @Test("Never around: no healthy instance is a refusal", arguments: [true, false])
    func unavailable(sick: Bool) {
        var waypoint = Base.waypoint
        waypoint.healthy = false
        let mesh = Base().mesh(
            namespace: Self.use, gateway: [Labels.waypointFor: "all"],
            workloads: [Base.client, Base.far] + (sick ? [waypoint] : []))
        #expect(Base().refusal(Base().resolve(mesh, "10.96.0.2:80")) == .waypointUnavailable)
        #expect(Base().refusal(Base().resolve(mesh, "10.2.0.1:80")) == .waypointUnavailable)
        #expect(Base().refusal(Base().resolve(mesh, "10.96.0.2:81")) == .unknownPort)
    }

    @Test("The waypoint itself is not sent through itself")
    func ownTraffic() {
        let mesh = Base().mesh(namespace: Self.use, gateway: [Labels.waypointFor: "all"])
        for destination in ["10.96.0.2:80", "10.2.0.1:8080"] {
            let tunnel = Base().tunnel(Base().resolve(mesh, destination, from: Base.waypoint))
            #expect(tunnel?.viaWaypoint == nil && tunnel?.authority == socket("10.2.0.1:8080"))
        }
    }

    @Test("A waypoint of another namespace")
    func otherNamespace() {
        var waypoint = Base.waypoint
        waypoint.name = name("edge/wp-1")
        let labels = [Labels.useWaypoint: "wp", Labels.useWaypointNamespace: "edge"]
        let mesh = MeshSnapshot(
            namespaces: ["default": Namespace(name: "default", labels: labels)],
            workloads: [Base.client, Base.far, waypoint], services: Base.services,
            gateways: [Gateway(name: name("edge/wp"))])
        #expect(Base().tunnel(Base().resolve(mesh, "10.96.0.2:80"))?.viaWaypoint == name("edge/wp"))
    }

    @Test("Waypoints and their Service are never bound to a waypoint, and never captured")
    func waypointsThemselves() {
        var front = Base.services[1]
        front.labels = [Labels.gatewayName: "wp"]
        var waypoint = Base.waypoint
        waypoint.netns = "/var/run/netns/wp"
        waypoint.node = "node-1"
        let mesh = Base().mesh(
            namespace: Self.use, services: [front], gateway: [Labels.waypointFor: "all"],
            workloads: [Base.client, waypoint])
        #expect(mesh.waypoint(ofService: front.name) == nil && mesh.waypoint(ofWorkload: waypoint.name) == nil)
        #expect(mesh.localWorkloads(node: "node-1") == [Base.client])
        #expect(mesh.isMeshed(waypoint) && !mesh.isCaptured(waypoint, node: "node-1"))
        #expect(Base().tunnel(Base().resolve(mesh, "10.2.0.9:80"))?.identity == waypoint.identity)
    }
}
