import Foundation
import MeshModel
import MeshTelemetry
import Testing

@testable import MeshAdmin

/// A mesh with one of everything, and JSON as dictionaries.
enum Fixture {
    static let shop = ObjectName(namespace: "default", name: "shop")

    static let mesh: MeshSnapshot = {
        let cart = Workload(
            name: ObjectName(namespace: "default", name: "cart"), labels: ["app": "cart"],
            addresses: [IPAddress(v4: 0x0a00_0001), IPAddress(high: 0xfd00 << 48, low: 1)], node: "node-1",
            serviceAccount: "cart", netns: "/var/run/netns/cart", namedPorts: ["web": 8080],
            locality: Locality(region: "r"))
        let waypoint = Workload(
            name: ObjectName(namespace: "default", name: "wp-1"), labels: [Labels.gatewayName: "wp"],
            addresses: [IPAddress(v4: 0x0a00_0002)], node: "node-2")
        var source = AuthorizationPolicy.Source()
        source.principals = [.prefix("cluster.local/"), .present]
        source.notIPBlocks = [CIDR("10.0.0.0/8")].compactMap(\.self)
        var operation = AuthorizationPolicy.Operation()
        operation.ports = [80]
        return MeshSnapshot(
            generation: 7, namespaces: ["default": Namespace(name: "default", labels: [Labels.useWaypoint: "wp"])],
            workloads: [cart, waypoint],
            services: [
                Service(
                    name: shop, addresses: [IPAddress(v4: 0x0a60_0001)], selector: ["app": "cart"],
                    ports: [
                        ServicePort(name: "http", port: 80, target: .name("web"), appProtocol: .http1),
                        ServicePort(port: 81),
                    ])
            ],
            gateways: [Gateway(name: ObjectName(namespace: "default", name: "wp"))],
            routes: [
                HTTPRoute(
                    name: shop, parents: [.init(service: shop, port: 80)], hostnames: ["*.test"],
                    rules: [
                        .init(
                            matches: [
                                .init(path: .exact("/a"), headers: [.init(name: "x", value: "1")], method: "GET")
                            ],
                            backends: [.init(service: shop, port: 80, weight: 3)])
                    ])
            ],
            authorizationPolicies: [
                AuthorizationPolicy(
                    name: shop, scope: .selector(["app": "cart"]), action: .allow,
                    rules: [.init(from: [source], to: [operation])]),
                AuthorizationPolicy(
                    name: ObjectName(namespace: "default", name: "l7"), scope: .services([shop]), action: .deny,
                    rules: []),
            ],
            peerAuthentications: [
                PeerAuthentication(name: shop, scope: .namespace, mode: nil, portModes: [80: .strict])
            ])
    }()

    static let daemon = DaemonFacts(kind: .node, name: "node-1", version: "0.1.0", cores: 2)

    static let connections = [OpenConnection.Direction.inbound, .outbound, .outbound].map { direction in
        OpenConnection(
            workload: mesh.workloads[0].name, direction: direction,
            source: SocketAddress(ip: IPAddress(v4: 1), port: 2),
            originalDestination: SocketAddress(ip: IPAddress(v4: 3), port: 4), actualDestination: nil,
            isTunnel: direction == .inbound, peerIdentity: mesh.workloads[0].identity, bytesFromClient: 5,
            bytesToClient: 6, ageMilliseconds: 7)
    }

    static func parse(_ text: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }
}

@Suite("JSON of the admin endpoints")
struct DocumentTests {
    func list(_ document: [String: Any], _ key: String) throws -> [[String: Any]] {
        try #require(document[key] as? [[String: Any]])
    }

    @Test("/snapshot shows every object and what follows from it")
    func snapshot() throws {
        let document = try Fixture.parse(
            try jsonText(SnapshotDocument(Fixture.mesh, daemon: Fixture.daemon, notReady: ["x: y"])))
        #expect(document["notReady"] as? [String] == ["x: y"])
        #expect((document["daemon"] as? [String: Any])?["kind"] as? String == "culvert-node")
        let mesh = try #require(document["mesh"] as? [String: Any])
        #expect(mesh["generation"] as? Int == 7 && mesh["mtls"] as? String == "PERMISSIVE")
        let cart = try list(mesh, "workloads")[0]
        #expect(cart["addresses"] as? [String] == ["10.0.0.1", "fd00::1"])
        #expect(cart["local"] as? Bool == true && cart["meshed"] as? Bool == true)
        #expect(cart["identity"] as? String == "spiffe://cluster.local/ns/default/sa/cart")
        let service = try list(mesh, "services")[0]
        #expect(service["waypoint"] as? String == "default/wp" && service["endpoints"] as? [String] == ["default/cart"])
        #expect(try list(service, "ports").map { $0["targetPort"] as? String } == ["web", "81"])
        let rule = try list(try list(mesh, "routes")[0], "rules")[0]
        #expect(rule["matches"] as? [String] == ["path = /a, method = GET, header x = 1"])
        #expect(rule["backends"] as? [String] == ["default/shop:80 weight 3"])
        let policies = try list(mesh, "authorizationPolicies")
        let from = try list(try list(policies[0], "rules")[0], "from")[0]
        #expect(from["principals"] as? [String] == ["cluster.local/*", "*"] && from["notPrincipals"] == nil)
        #expect((policies[1]["scope"] as? [String: Any])?["targets"] as? [String] == ["default/shop"])
        let peer = try list(mesh, "peerAuthentications")[0]
        #expect(peer["mode"] as? String == "UNSET" && peer["portModes"] as? [String: String] == ["80": "STRICT"])
    }

    @Test("/config_dump has the keys and spellings that istioctl reads")
    func configDump() throws {
        let certificate = AdminCertificate(
            identity: Fixture.mesh.workloads[0].identity, state: "Available", chainPEM: ["leaf"], rootsPEM: ["root"],
            serialNumber: "12", notBefore: 0, notAfter: 86400)
        let dump = try Fixture.parse(
            try jsonText(
                ConfigDump(
                    Fixture.mesh, daemon: Fixture.daemon, connections: Fixture.connections, certificates: [certificate])
            ))
        #expect(
            Set(dump.keys) == [
                "workloads", "services", "policies", "certificates", "workloadState", "version", "config",
            ])
        let cart = try list(dump, "workloads")[0]
        #expect(cart["protocol"] as? String == "HBONE" && cart["status"] as? String == "Healthy")
        let service = try list(dump, "services")[0]
        #expect(service["vips"] as? [String] == ["/10.96.0.1"])
        #expect(service["ports"] as? [String: Int] == ["80": 0, "81": 81])
        let endpoints = try #require(service["endpoints"] as? [String: [String: Any]])
        #expect(endpoints["default/cart"]?["port"] as? [String: Int] == ["80": 8080, "81": 81])
        #expect((service["waypoint"] as? [String: Any])?["hboneMtlsPort"] as? Int == 15008)
        let policies = try list(dump, "policies")
        #expect(policies.count == 1 && policies[0]["scope"] as? String == "WorkloadSelector")
        let rules = try #require(policies[0]["rules"] as? [[[[String: Any]]]])
        #expect(rules[0].count == 2 && rules[0][1][0]["destinationPorts"] as? [Int] == [80])
        #expect(Set(rules[0][0][0].keys) == ["principals", "notSourceIps"])
        #expect((rules[0][0][0]["principals"] as? [[String: Any]])?[0]["Prefix"] as? String == "cluster.local/")
        let link = try list(try list(dump, "certificates")[0], "certChain")[0]
        #expect(link["pem"] as? String == "bGVhZg==" && link["expirationTime"] as? String == "1970-01-02T00:00:00Z")
        let states = try #require(dump["workloadState"] as? [String: [String: Any]])
        let state = try #require(states["default/cart"]?["connections"] as? [String: [[String: Any]]])
        #expect(state["inbound"]?.count == 1 && state["outbound"]?.count == 2)
        #expect(state["inbound"]?[0]["protocol"] as? String == "HBONE")
    }

    @Test("/connections counts each direction")
    func connections() throws {
        let document = try Fixture.parse(try jsonText(ConnectionsDocument(Fixture.connections)))
        #expect(document["inbound"] as? Int == 1 && document["outbound"] as? Int == 2)
        let first = try list(document, "connections")[0]
        #expect(first["source"] as? String == "0.0.0.1:2" && first["actualDestination"] == nil)
    }
}
