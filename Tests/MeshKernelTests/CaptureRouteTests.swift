import MeshModel
import Testing

@testable import MeshKernel

/// `culvert capture explain --to`: one destination of each kind, and what decides about it.
@Suite struct CaptureRouteTests {
    private static func ip(_ text: String) -> IPAddress {
        guard let address = IPAddress(text) else { preconditionFailure("no address: \(text)") }
        return address
    }

    private static func workload(
        _ name: String, _ addresses: String..., node: String = "node-1", transport: TransportProtocol = .tls,
        labels: [String: String] = [:], acceleration: AccelerationMode? = nil
    ) -> Workload {
        Workload(
            name: ObjectName(namespace: "default", name: name), labels: labels.merging(["app": name]) { $1 },
            addresses: addresses.map(ip), node: node, serviceAccount: name, transport: transport,
            netns: "/run/netns/\(name)", acceleration: acceleration)
    }

    private static let client = workload("client", "10.1.0.1", acceleration: .sockmap)
    private static let workloads = [
        client, workload("near", "10.1.0.2"), workload("fast", "10.1.0.3", acceleration: .sockmap),
        workload("far", "10.2.0.1", node: "node-2"), workload("plain", "10.1.0.4", transport: .tcp),
        workload("closed", "10.1.0.5"),
        workload("bound", "10.1.0.6", labels: ["istio.io/use-waypoint": "wp"]),
    ]

    private static let mesh: MeshSnapshot = {
        let services = ["near", "far", "nobody"].enumerated().map { index, name in
            Service(
                name: ObjectName(namespace: "default", name: name), addresses: [ip("10.96.0.\(index + 1)")],
                selector: ["app": name], ports: [ServicePort(port: 80, target: .number(8080))])
        }
        return MeshSnapshot(
            workloads: workloads, services: services,
            gateways: [
                Gateway(name: ObjectName(namespace: "default", name: "wp"), labels: [Labels.waypointFor: "all"])
            ],
            authorizationPolicies: [
                AuthorizationPolicy(
                    name: ObjectName(namespace: "default", name: "shut"), scope: .selector(["app": "closed"]),
                    action: .deny, rules: [AuthorizationPolicy.Rule()])
            ])
    }()

    private func route(
        _ destination: String, _ level: CaptureLevel = .l0, _ change: (inout CaptureFacts) -> Void = { _ in }
    ) throws -> CaptureExplanation.Route {
        var facts = CaptureFacts(
            addresses: Self.client.addresses, scope: CaptureScope(excludedOutboundPorts: [9000]))
        change(&facts)
        return level.route(
            of: Self.client, to: try #require(SocketAddress(destination)), in: Self.mesh, node: "node-1", facts)
    }

    @Test(arguments: [
        ("127.0.0.1:80", "inside.self", nil, "does not leave"), ("10.1.0.1:80", "inside.self", nil, "does not leave"),
        ("224.0.0.1:80", "inside.self", nil, "does not leave"),
        ("10.1.0.2:9000", "outbound.excluded", nil, "all but port 9000"),
        ("[fe80::1]:80", "outbound.refused", nil, "link-local"),
        ("[2001:db8::1]:80", "outbound.refused", nil, "no IPv6 address"),
        ("10.1.0.9:53", "outbound.dns-tcp", nil, "answers DNS"),
        ("10.1.0.2:8080", "outbound.direct", "T1", "default/near, port 8080: policy allows it directly"),
        ("10.1.0.3:8080", "outbound.direct", "T2", "default/fast, port 8080: policy allows it directly"),
        ("10.96.0.1:80", "outbound.direct", "T1", "service default/near: the kernel chooses among 1 endpoints"),
        ("10.96.0.2:80", "outbound.proxied", nil, "by mutual TLS to default/far at 10.2.0.1:15008"),
        ("10.96.0.2:80", "outbound.proxied", nil, "policy allows it, since none names it"),
        ("10.96.0.3:80", "outbound.proxied", nil, "refuses it: no_healthy_upstream"),
        ("10.96.0.1:81", "outbound.proxied", nil, "refuses it: unknown_port"),
        ("10.2.0.1:8080", "outbound.proxied", nil, "default/far is not captured on this node"),
        ("10.1.0.4:8080", "outbound.proxied", nil, "default/plain is not meshed"),
        ("10.1.0.5:8080", "outbound.proxied", "T0", "policy refuses it: policy_deny (default/shut)"),
        ("10.1.0.6:8080", "outbound.proxied", nil, "the waypoint default/wp is bound to it"),
        ("10.1.0.6:8080", "outbound.proxied", nil, "refuses it: waypoint_unavailable"),
        ("198.51.100.1:443", "outbound.proxied", nil, "in clear text"),
    ])
    func eachKind(destination: String, flow: String, tier: String?, words: String) throws {
        let route = try route(destination)
        #expect(route.flow == flow && route.tier == tier, "\(route)")
        #expect(route.steps.contains { $0.contains(words) }, "\(route)")
        #expect(route.destination == destination)
    }

    @Test func levelsAndObstaclesDecide() throws {
        for level in [CaptureLevel.l2, .l3] {
            let route = try route("10.1.0.2:8080", level)
            #expect(route.flow == "outbound.proxied" && route.tier == "T0", "\(route)")
            #expect(route.steps.first == "not direct: level \(level) has no direct connections")
        }
        let unfit = try route("10.1.0.3:8080") { $0.accelerationObstacle = "unfit" }
        #expect(unfit.tier == "T1")
        let proxied = try route("10.1.0.3:8080") { $0.directObstacle = "no SOCK_DESTROY" }
        #expect(proxied.tier == "T0" && proxied.steps.first == "not direct: no SOCK_DESTROY")
    }

    @Test func everyAnswerIsARowOfTheTable() throws {
        let rows = Set(CaptureLevel.l0.flows(CaptureFacts(addresses: []), counts: nil).map(\.id))
        for destination in ["127.0.0.1:1", "10.1.0.2:9000", "[fe80::1]:1", "1.1.1.1:53", "10.1.0.2:1", "1.1.1.1:1"] {
            #expect(rows.contains(try route(destination).flow))
        }
    }
}
