import MeshModel
import Testing

/// What the kernel may decide by itself is what the proxy would decide: `directRule` against `resolve` and `authorize`.
@Suite("Rules for direct connections")
struct DirectRuleTests {
    private static let ports: [UInt16] = [80, 81, 82, 83, 15001, 15006, 15008]

    /// How the proxy answers a connection: nil when it would not take it straight to the workload.
    private func proxied(
        _ mesh: MeshSnapshot, _ source: Workload, _ target: SocketAddress, from address: IPAddress
    ) -> Bool? {
        var chance = SeededRandom(1)
        let resolution = mesh.resolve(from: source, to: target, node: "node-1", using: &chance)
        guard case .local(let reached, let workload, _) = resolution, reached == target else { return nil }
        let request = AuthorizationRequest(
            destination: workload, address: reached, sourceIP: address, identity: source.identity)
        return mesh.authorize(request).isAllowed
    }

    @Test("direct exactly where the proxy allows, or not at all", arguments: 0..<20 as Range<UInt64>)
    func agrees(seed: UInt64) {
        var draw = Generator(chance: SeededRandom(seed))
        var direct = 0
        for _ in 0..<100 {
            var settings = MeshSettings()
            settings.mutualTLS = draw.one([.permissive, .strict])
            let workloads = (0..<4).map { number in
                var labels = draw.one(Generator.labels)
                if draw.one([true, false, false, false]) { labels["istio.io/use-waypoint"] = draw.one(["g", "none"]) }
                return workload(
                    "\(draw.one(Generator.namespaces))/w\(number)", "10.0.0.\(number)", "fd00::\(number)",
                    labels: labels, node: draw.one(["node-1", "node-1", "node-2"]),
                    captured: draw.one([true, true, false]))
            }
            let services = [
                Service(name: name("a/s"), addresses: [draw.one(["10.0.0.1", "10.96.0.1"].map(ip))], ports: [])
            ]
            let policies = (0..<Int.random(in: 0...3, using: &draw.chance)).map { draw.policy($0) }
            let mesh = MeshSnapshot(
                settings: settings, workloads: workloads, services: services, authorizationPolicies: policies)
            for source in workloads {
                for destination in workloads where destination.name != source.name {
                    let rule = mesh.directRule(from: source, to: destination, node: "node-1")
                    for port in Self.ports {
                        let answers = source.addresses.flatMap { own in
                            destination.addresses.map {
                                proxied(mesh, source, SocketAddress(ip: $0, port: port), from: own)
                            }
                        }
                        guard let rule else { continue }
                        let isDirect = rule.isDirect(port: port)
                        if isDirect { direct += 1 }
                        let isAllowed = answers.allSatisfy { $0 == true }
                        #expect(isDirect == isAllowed, "\(source.name) to \(destination.name):\(port), \(policies)")
                    }
                }
            }
        }
        #expect(direct > 100, "the draw is worth nothing when the kernel never decides")
    }

    private func mesh(_ policies: [AuthorizationPolicy] = [], mode: SameNodeMode = .direct) -> MeshSnapshot {
        var settings = MeshSettings()
        settings.sameNode = mode
        return MeshSnapshot(
            settings: settings, workloads: [workload("a/one", "10.0.0.1"), workload("a/two", "10.0.0.2")],
            authorizationPolicies: policies)
    }

    @Test("an open connection ends when it would be encrypted now, or is to pass a waypoint")
    func goesOn() {
        func verdict(_ mesh: MeshSnapshot, byService: Bool = false, port: UInt16 = 8080) -> Verdict {
            let destination = mesh.workloads[1]
            return mesh.authorizeOpen(
                AuthorizationRequest(
                    destination: destination, address: SocketAddress(ip: destination.addresses[0], port: port),
                    sourceIP: ip("10.0.0.1"), identity: mesh.workloads[0].identity),
                from: mesh.workloads[0], isByService: byService)
        }
        func bound(_ target: [String: String], _ service: [String: String] = [:], by waypoint: String? = nil)
            -> MeshSnapshot
        {
            let own = waypoint.map { ["gateway.networking.k8s.io/gateway-name": $0] }
            let source = workload("a/one", "10.0.0.1", labels: own ?? [:])
            var asked = Service(
                name: name("a/s"), addresses: [ip("10.96.0.1")], selector: ["app": "two"],
                ports: [.init(port: 80, target: .number(8080))])
            asked.labels = service
            var destination = workload("a/two", "10.0.0.2")
            destination.labels = target.merging(["app": "two"]) { first, _ in first }
            return MeshSnapshot(workloads: [source, destination], services: [asked])
        }
        let waypoint = ["istio.io/use-waypoint": "g"]
        let ended = Verdict.deny(.policyChanged, policy: nil)
        for mode in [SameNodeMode.direct, .proxy] { #expect(verdict(mesh(mode: mode)).isAllowed) }
        #expect(verdict(mesh(mode: .tunnel)) == ended)
        #expect(verdict(mesh([allow([81])], mode: .tunnel)) == .deny(.policyNoAllow, policy: name("a/p")))
        #expect(verdict(bound([:])).isAllowed && verdict(bound([:]), byService: true).isAllowed)
        #expect(verdict(bound(waypoint)) == ended)
        #expect(verdict(bound(waypoint, by: "g")).isAllowed, "the waypoint's own way")
        #expect(verdict(bound(waypoint), byService: true).isAllowed, "services of the workload have their own binding")
        #expect(verdict(bound([:], waypoint), byService: true) == ended)
        #expect(verdict(bound([:], waypoint)).isAllowed, "the service was not asked for")
        #expect(verdict(bound([:], waypoint), byService: true, port: 8081).isAllowed, "no endpoint of it")
    }

    private func rule(_ mesh: MeshSnapshot) -> DirectRule? {
        mesh.directRule(from: mesh.workloads[0], to: mesh.workloads[1], node: "node-1")
    }

    private func allow(_ ports: [UInt16], from: [AuthorizationPolicy.Source] = []) -> AuthorizationPolicy {
        var operation = AuthorizationPolicy.Operation()
        operation.ports = ports
        return AuthorizationPolicy(
            name: name("a/p"), scope: .namespace, action: .allow,
            rules: [.init(from: from, to: ports.isEmpty ? [] : [operation])])
    }

    @Test("the kernel chooses among the endpoints the proxy would choose from", arguments: 0..<10 as Range<UInt64>)
    func services(seed: UInt64) {
        var draw = Generator(chance: SeededRandom(seed))
        var found = 0
        for _ in 0..<100 {
            let workloads = (0..<4).map { number in
                workload(
                    "a/w\(number)", "10.0.0.\(number)", draw.one(["fd00::\(number)", "10.0.1.\(number)"]),
                    labels: ["app": draw.one(["x", "x", "y"])], node: draw.one(["node-1", "node-1", "node-2"]),
                    captured: draw.one([true, true, true, false]), healthy: draw.one([true, true, false]))
            }
            var service = Service(
                name: name("a/s"), addresses: [ip("10.96.0.1"), ip("fd96::1")],
                selector: ["app": draw.one(["x", "y"])],
                ports: [.init(port: 80, target: .number(8080)), .init(port: 81)])
            if draw.one([true, false, false]) { service.labels["istio.io/use-waypoint"] = "g" }
            let mesh = MeshSnapshot(workloads: workloads, services: [service])
            let direct = mesh.directServices(node: "node-1")
            let caller = workload("b/caller", "10.0.9.9")
            for address in service.addresses {
                for port in [80, 81, 82] as [UInt16] {
                    let target = SocketAddress(ip: address, port: port)
                    var reached: Set<SocketAddress> = []
                    var isLocal = true
                    for _ in 0..<40 {
                        if case .local(let endpoint, _, _) = mesh.resolve(
                            from: caller, to: target, node: "node-1", using: &draw.chance),
                            endpoint.ip.isIPv4 == address.isIPv4
                        {
                            reached.insert(endpoint)
                        } else {
                            isLocal = false
                        }
                    }
                    #expect(direct[target].map(Set.init) == (isLocal ? reached : nil), "\(workloads) \(service)")
                    found += isLocal ? 1 : 0
                }
            }
        }
        #expect(found > 20)
    }

    @Test("accelerated where both workloads ask for it, or the mesh for those that say nothing")
    func acceleration() throws {
        for ofMesh in [AccelerationMode.off, .sockmap] {
            for ofSource in [nil, AccelerationMode.off, .sockmap] {
                for ofDestination in [nil, AccelerationMode.off, .sockmap] {
                    var settings = MeshSettings()
                    settings.acceleration = ofMesh
                    var ends = [workload("a/one", "10.0.0.1"), workload("a/two", "10.0.0.2")]
                    (ends[0].acceleration, ends[1].acceleration) = (ofSource, ofDestination)
                    let both = [ofSource ?? ofMesh, ofDestination ?? ofMesh] == [.sockmap, .sockmap]
                    let mesh = MeshSnapshot(settings: settings, workloads: ends)
                    let found = try #require(rule(mesh))
                    #expect(found.isAccelerated == both, "\(ofMesh) \(String(describing: (ofSource, ofDestination)))")
                    // It says nothing about who may.
                    let refused = MeshSnapshot(
                        settings: settings, workloads: ends, authorizationPolicies: [allow([443])])
                    #expect(
                        rule(refused) == DirectRule(isDirect: false, exceptions: [443], isAccelerated: both))
                }
            }
        }
    }

    @Test("without policy every port but the proxy's own")
    func open() {
        #expect(rule(mesh()) == DirectRule(isDirect: true, exceptions: [53, 15001, 15006, 15008, 15053]))
        #expect(rule(mesh(mode: .proxy)) == nil && rule(mesh(mode: .tunnel)) == nil)
        let both = mesh()
        #expect(both.directRule(from: both.workloads[0], to: both.workloads[0], node: "node-1") == nil)
        #expect(both.directRule(from: both.workloads[0], to: both.workloads[1], node: "node-2") == nil)
    }

    @Test("ports that policy names are decided one by one, as many as the kernel has room for")
    func ports() {
        #expect(rule(mesh([allow([80, 443])])) == DirectRule(isDirect: false, exceptions: [80, 443]))
        #expect(rule(mesh([allow([15008])])) == nil, "nothing is left that the kernel could allow")
        let most = (0..<UInt16(DirectRule.maximumExceptions)).map { 1000 + $0 }
        #expect(rule(mesh([allow(most)]))?.exceptions == most)
        #expect(rule(mesh([allow(most + [2000])])) == nil)
    }

    @Test("what hangs on the client's address is the proxy's")
    func blocks() {
        var source = AuthorizationPolicy.Source()
        source.ipBlocks = [CIDR("10.0.0.0/8")].compactMap(\.self)
        #expect(rule(mesh([allow([], from: [source])])) == nil)
    }
}
