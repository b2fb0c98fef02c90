import MeshModel
import Testing

@testable import MeshModel

/// Finding a workload by what somebody typed, and saying why one is not captured or not reached directly.
@Suite struct SearchTests {
    private let mesh = MeshSnapshot(workloads: [
        workload("default/shop", "10.0.0.1"), workload("default/cart", "10.0.0.2"), workload("test/cart", "10.0.0.3"),
        workload("test/payment-6f9", "10.0.0.4"), workload("test/payment-7aa", "10.0.0.5"),
    ])

    private func near(_ text: String) -> [String]? {
        guard case .unknown(let names) = mesh.search(workload: text) else { return nil }
        return names.map(\.description)
    }

    @Test func wholeNamesAndShortOnesThatAreEnough() {
        for text in ["default/shop", "shop"] {
            #expect(mesh.search(workload: text) == .found(mesh.workloads[0]), "\(text)")
        }
        #expect(mesh.search(workload: "cart") == .ambiguous([name("default/cart"), name("test/cart")]))
        #expect(mesh.search(workload: "test/cart") == .found(mesh.workloads[2]))
    }

    @Test func unknownNamesBringThoseThatMayBeMeant() {
        #expect(near("default/carts") == ["default/cart", "test/cart"])
        #expect(near("other/shop") == ["default/shop"])
        #expect(near("shpo") == ["default/shop"])
        #expect(near("shp") == ["default/shop"])
        #expect(near("payment") == ["test/payment-6f9", "test/payment-7aa"])
        #expect(near("test/payment-6f9-x") == ["test/payment-6f9"])
        for nobody in ["zzz", "", "/", "a/b/c", "default/", "/shop/"] { #expect(near(nobody) != nil, "\(nobody)") }
        #expect(near("zzz") == [])
    }

    @Test func suggestionsHaveAnEnd() {
        let many = MeshSnapshot(workloads: (10..<40).map { workload("default/shop\($0)", "10.0.0.\($0)") })
        guard case .unknown(let names) = many.search(workload: "shop1") else {
            Issue.record("it is known")
            return
        }
        #expect(names.count == MeshSnapshot.maximumSuggestions)
    }

    @Test(arguments: [
        ("", "", 0), ("a", "", 1), ("shop", "shop", 0), ("shop", "shpo", 2), ("kitten", "sitting", 3), ("ab", "ba", 2),
    ])
    func distances(left: String, right: String, distance: Int) {
        #expect(editDistance(Array(left.utf8), Array(right.utf8), atMost: 5) == distance)
        #expect(editDistance(Array(right.utf8), Array(left.utf8), atMost: 5) == distance)
        if distance > 0 { #expect(editDistance(Array(left.utf8), Array(right.utf8), atMost: distance - 1) == nil) }
    }

    @Test func whyAWorkloadIsNotCaptured() {
        let none = ["istio.io/dataplane-mode": "none"]
        let cases: [(Workload, String?)] = [
            (workload("default/a", "10.0.0.1"), nil),
            (workload("default/b", "10.0.0.2", node: "node-2"), "node-2"),
            (workload("default/c", "10.0.0.3", transport: .tcp), "protocol is TCP"),
            (workload("default/d", "10.0.0.4", labels: none), "istio.io/dataplane-mode: none"),
            (workload("default/e", "10.0.0.5", captured: false), "spec.netns"),
            (
                workload("default/f", "10.0.0.6", labels: ["gateway.networking.k8s.io/gateway-name": "w"]),
                "waypoint"
            ),
        ]
        let mesh = MeshSnapshot(workloads: cases.map(\.0))
        for (workload, words) in cases {
            let why = mesh.obstacleToCapture(of: workload, node: "node-1")
            #expect(
                (why == nil) == (words == nil) && why?.contains(words ?? "") ?? true, "\(workload.name): \(why ?? "")")
        }
    }

    @Test func whyConnectionsAreNotDirect() {
        let source = workload("default/source", "10.0.0.1")
        func obstacle(
            to destination: Workload, _ settings: MeshSettings = MeshSettings(), services: [Service] = [],
            gateways: [Gateway] = [], policies: [AuthorizationPolicy] = []
        ) -> DirectObstacle? {
            let mesh = MeshSnapshot(
                settings: settings, workloads: [source, destination], services: services, gateways: gateways,
                authorizationPolicies: policies)
            do throws(DirectObstacle) {
                _ = try mesh.decideDirect(from: source, to: destination, node: "node-1")
                return nil
            } catch { return error }
        }
        let there = workload("default/there", "10.0.0.2")
        #expect(obstacle(to: there) == nil)
        var proxied = MeshSettings()
        proxied.sameNode = .proxy
        #expect(obstacle(to: there, proxied) == .sameNodeMode(.proxy))
        #expect(
            obstacle(to: workload("default/there", "10.0.0.2", node: "node-2")) == .notCaptured(there.name))
        #expect(
            obstacle(to: there, services: [Service(name: name("default/s"), addresses: [ip("10.0.0.2")], ports: [])])
                == .sharedAddress(ip("10.0.0.2")))
        func policy(_ change: (inout AuthorizationPolicy.Rule) -> Void) -> AuthorizationPolicy {
            var rule = AuthorizationPolicy.Rule()
            change(&rule)
            return AuthorizationPolicy(name: name("default/p"), scope: .namespace, action: .allow, rules: [rule])
        }
        var ranges = AuthorizationPolicy.Source()
        ranges.ipBlocks = [CIDR(ip("10.0.0.0"), prefixLength: 8)].compactMap { $0 }
        #expect(obstacle(to: there, policies: [policy { $0.from = [ranges] }]) == .addressPolicy(name("default/p")))
        var nobody = AuthorizationPolicy.Source()
        nobody.namespaces = [.exact("nobody")]
        #expect(obstacle(to: there, policies: [policy { $0.from = [nobody] }]) == .nothingAllowed)
        var ports = AuthorizationPolicy.Operation()
        ports.ports = Array(1...29)
        #expect(obstacle(to: there, policies: [policy { $0.to = [ports] }]) == .tooManyPorts(29))
    }

    @Test func mutualTLSIsSaidWithItsSource() {
        let shop = workload("default/shop", "10.0.0.1", labels: ["app": "shop"])
        func phrase(_ policies: [PeerAuthentication]) -> String {
            MeshSnapshot(workloads: [shop], peerAuthentications: policies).mutualTLSPhrase(of: shop)
        }
        #expect(phrase([]) == "PERMISSIVE (Mesh)")
        let strict = PeerAuthentication(name: name("default/all"), scope: .namespace, mode: .strict)
        #expect(phrase([strict]) == "STRICT (PeerAuthentication default/all)")
        let port = PeerAuthentication(
            name: name("default/port"), scope: .selector(["app": "shop"]), mode: nil, portModes: [80: .permissive])
        #expect(phrase([strict, port]) == "STRICT (PeerAuthentication default/all), PERMISSIVE on port 80")
    }
}
