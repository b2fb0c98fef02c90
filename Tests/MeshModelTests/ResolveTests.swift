import MeshModel
import Testing

/// Node 1 runs the client, a local server and a plain one; node 2 a remote server with two families and the waypoint.
@Suite("Where a connection goes")
struct ResolveTests {
    static let client = workload("default/client", "10.1.0.1", "fd00::1")
    static let near = workload("default/near", "10.1.0.2", labels: ["app": "near"], ports: ["web": 8080])
    static let plain = workload("default/plain", "10.1.0.3", labels: ["app": "plain"], transport: .tcp)
    static let far = workload(
        "default/far", "10.2.0.1", "fd00:2::1", labels: ["app": "far"], node: "node-2", captured: false)
    static let waypoint = workload(
        "default/wp-1", "10.2.0.9", labels: [Labels.gatewayName: "wp", Labels.dataplaneMode: "none"], node: "node-2",
        captured: false)

    static func service(_ text: String, _ address: String, app: String, _ ports: ServicePort...) -> Service {
        Service(name: name(text), addresses: [ip(address)], selector: ["app": app], ports: ports)
    }

    static let services = [
        service(
            "default/near", "10.96.0.1", app: "near", ServicePort(port: 80, target: .name("web")),
            ServicePort(port: 81, target: .name("absent"))),
        service("default/far", "10.96.0.2", app: "far", ServicePort(port: 80, target: .number(8080))),
        service("default/plain", "10.96.0.3", app: "plain", ServicePort(port: 80)),
        service("default/none", "10.96.0.4", app: "nobody", ServicePort(port: 80)),
        service(
            "default/loop", "10.96.0.5", app: "far", ServicePort(port: 80, target: .number(15008))),
    ]

    func mesh(
        settings: MeshSettings = MeshSettings(), namespace: [String: String] = [:], services: [Service] = services,
        gateway: [String: String]? = [:], workloads: [Workload] = [client, near, plain, far, waypoint]
    ) -> MeshSnapshot {
        MeshSnapshot(
            settings: settings, namespaces: ["default": Namespace(name: "default", labels: namespace)],
            workloads: workloads, services: services,
            gateways: gateway.map { [Gateway(name: name("default/wp"), labels: $0)] } ?? [])
    }

    func resolve(_ mesh: MeshSnapshot, _ destination: String, from source: Workload = client) -> Resolution {
        var chance = SeededRandom(7)
        return mesh.resolve(from: source, to: socket(destination), node: "node-1", using: &chance)
    }

    func refusal(_ resolution: Resolution) -> Reason? {
        if case .refuse(let reason, _) = resolution { reason } else { nil }
    }

    func tunnel(_ resolution: Resolution) -> Tunnel? {
        if case .tunnel(let tunnel, _) = resolution { tunnel } else { nil }
    }

    @Test("What is not known, and the caller's own addresses, pass as they are")
    func passthrough() {
        #expect(resolve(mesh(), "198.51.100.1:443") == .passthrough(socket("198.51.100.1:443")))
        #expect(resolve(mesh(), "127.0.0.1:80") == .passthrough(socket("127.0.0.1:80")))
        #expect(resolve(mesh(), "10.1.0.1:80") == .passthrough(socket("10.1.0.1:80")))
        #expect(resolve(mesh(), "[fd00::1]:80") == .passthrough(socket("[fd00::1]:80")))
    }

    @Test(
        "The proxy's own ports are refused on loopback, on itself, on meshed workloads and behind a service",
        arguments: [
            "127.0.0.1:15001", "[::1]:15006", "10.1.0.1:15001", "10.2.0.1:15008", "10.2.0.9:15008", "10.96.0.5:80",
        ])
    func recursion(_ destination: String) {
        #expect(refusal(resolve(mesh(), destination)) == .recursiveCall)
    }

    @Test("The same ports mean nothing elsewhere")
    func noRecursion() {
        #expect(resolve(mesh(), "198.51.100.1:15008") == .passthrough(socket("198.51.100.1:15008")))
        #expect(
            resolve(mesh(), "10.1.0.3:15008") == .plain(socket("10.1.0.3:15008"), Destination(workload: Self.plain)))
    }

    @Test("A remote workload is reached through a tunnel with its identity")
    func remote() throws {
        let tunnel = try #require(self.tunnel(resolve(mesh(), "10.2.0.1:9000")))
        #expect(tunnel.peer == socket("10.2.0.1:15008") && tunnel.authority == socket("10.2.0.1:9000"))
        #expect(tunnel.identity == Self.far.identity && tunnel.viaWaypoint == nil)
    }

    @Test("A service is translated to an endpoint and its target port")
    func service() throws {
        let found = resolve(mesh(), "10.96.0.2:80")
        #expect(tunnel(found)?.authority == socket("10.2.0.1:8080"))
        guard case .tunnel(_, let known) = found else { return }
        #expect(known.service?.name == name("default/far") && known.servicePort?.port == 80)
        #expect(known.workload == Self.far)
    }

    @Test("A named target port is each workload's own; a workload without it is no endpoint")
    func namedPort() {
        guard case .local(let address, let workload, _) = resolve(mesh(), "10.96.0.1:80") else {
            Issue.record("not local")
            return
        }
        #expect(address == socket("10.1.0.2:8080") && workload == Self.near)
        #expect(refusal(resolve(mesh(), "10.96.0.1:81")) == .noHealthyUpstream)
    }

    @Test("The endpoint's address is of the family that was asked for")
    func family() {
        var dual = Self.services
        dual[1].addresses.append(ip("fd96::2"))
        #expect(tunnel(resolve(mesh(services: dual), "[fd96::2]:80"))?.peer == socket("[fd00:2::1]:15008"))
        #expect(tunnel(resolve(mesh(services: dual), "10.96.0.2:80"))?.peer == socket("10.2.0.1:15008"))
    }

    @Test("Ports a service lacks, and services nobody serves, are refused")
    func refused() {
        #expect(refusal(resolve(mesh(), "10.96.0.2:81")) == .unknownPort)
        #expect(refusal(resolve(mesh(), "10.96.0.4:80")) == .noHealthyUpstream)
        var sick = Self.far
        sick.healthy = false
        let mesh = mesh(workloads: [Self.client, sick])
        #expect(refusal(resolve(mesh, "10.96.0.2:80")) == .noHealthyUpstream)
        // By its own address it can still be reached: the caller asked for nobody else.
        #expect(tunnel(resolve(mesh, "10.2.0.1:80")) != nil)
    }

    @Test("Same node: local, unless the mesh wants tunnels")
    func sameNode() {
        guard case .local = resolve(mesh(), "10.1.0.2:80") else {
            Issue.record("not local")
            return
        }
        var settings = MeshSettings()
        settings.sameNode = .tunnel
        #expect(tunnel(resolve(mesh(settings: settings), "10.1.0.2:80"))?.peer == socket("10.1.0.2:15008"))
        var uncaptured = Self.near
        uncaptured.netns = nil
        #expect(tunnel(resolve(mesh(workloads: [Self.client, uncaptured]), "10.1.0.2:80")) != nil)
    }

    @Test("protocol TCP and dataplane-mode none mean plain TCP; the workload's own label wins")
    func notMeshed() {
        #expect(
            resolve(mesh(), "10.96.0.3:80")
                == .plain(
                    socket("10.1.0.3:80"),
                    Destination(service: Self.services[2], servicePort: Self.services[2].ports[0], workload: Self.plain)
                ))
        let off = mesh(namespace: [Labels.dataplaneMode: "none"])
        #expect(resolve(off, "10.2.0.1:80") == .plain(socket("10.2.0.1:80"), Destination(workload: Self.far)))
        #expect(off.localWorkloads(node: "node-1").isEmpty)
        var stubborn = Self.far
        stubborn.labels[Labels.dataplaneMode] = "ambient"
        let mixed = mesh(namespace: [Labels.dataplaneMode: "none"], workloads: [Self.client, stubborn])
        #expect(tunnel(resolve(mixed, "10.2.0.1:80")) != nil)
        #expect(mixed.isMeshed(stubborn) && !mixed.isMeshed(Self.client))
    }

    @Test("localWorkloads are the captured ones of the node")
    func localWorkloads() {
        #expect(mesh().localWorkloads(node: "node-1") == [Self.client, Self.near])
        #expect(mesh().localWorkloads(node: "node-2").isEmpty)
    }

    @Test("Every healthy endpoint is used about equally")
    func balance() {
        let endpoints = (1...4).map { workload("default/e\($0)", "10.3.0.\($0)", labels: ["app": "far"], node: "n") }
        let mesh = mesh(workloads: [Self.client] + endpoints)
        var chance = SeededRandom(3)
        var hits: [IPAddress: Int] = [:]
        for _ in 0..<4000 {
            let found = mesh.resolve(
                from: Self.client, to: socket("10.96.0.2:80"), node: "node-1", using: &chance)
            if let tunnel = tunnel(found) { hits[tunnel.peer.ip, default: 0] += 1 }
        }
        #expect(hits.count == 4 && hits.values.allSatisfy { (850...1150).contains($0) })
    }

    @Test("A waypoint picks endpoints without waypoints and never locally")
    func backend() throws {
        let bound = mesh(namespace: [Labels.useWaypoint: "wp"])
        var chance = SeededRandom(1)
        let near = bound.resolveBackend(name("default/near"), port: 80, family: nil, using: &chance)
        #expect(tunnel(near)?.authority == socket("10.1.0.2:8080"))
        let far = bound.resolveBackend(name("default/far"), port: 80, family: ip("::1"), using: &chance)
        #expect(tunnel(far)?.peer == socket("[fd00:2::1]:15008"))
        #expect(refusal(bound.resolveBackend(name("a/b"), port: 80, family: nil, using: &chance)) == .noBackend)
        #expect(
            refusal(bound.resolveBackend(name("default/far"), port: 1, family: nil, using: &chance)) == .unknownPort)
    }
}
