import MeshModel
import Testing

@Suite("Who may reach a workload")
struct AuthorizeTests {
    static let server = workload("shop/server", "10.1.0.2", labels: ["app": "server", "tier": "web"])

    func source(_ edit: (inout AuthorizationPolicy.Source) -> Void) -> AuthorizationPolicy.Source {
        var source = AuthorizationPolicy.Source()
        edit(&source)
        return source
    }

    func ports(_ ports: [UInt16] = [], not notPorts: [UInt16] = []) -> AuthorizationPolicy.Operation {
        var operation = AuthorizationPolicy.Operation()
        operation.ports = ports
        operation.notPorts = notPorts
        return operation
    }

    func policy(
        _ text: String, _ action: AuthorizationPolicy.Action, scope: PolicyScope = .namespace,
        _ rules: AuthorizationPolicy.Rule...
    ) -> AuthorizationPolicy {
        AuthorizationPolicy(name: name(text), scope: scope, action: action, rules: rules)
    }

    /// `from` is a principal, or nil for plaintext.
    func verdict(
        _ policies: [AuthorizationPolicy], peers: [PeerAuthentication] = [], mesh mode: MutualTLSMode = .permissive,
        from principal: String? = "cluster.local/ns/web/sa/front", ip source: String = "10.9.0.1", port: UInt16 = 8080,
        to destination: Workload = server
    ) -> Verdict {
        var settings = MeshSettings()
        settings.mutualTLS = mode
        let mesh = MeshSnapshot(
            settings: settings, workloads: [Self.server], authorizationPolicies: policies, peerAuthentications: peers)
        return mesh.authorize(
            AuthorizationRequest(
                destination: destination, address: SocketAddress(ip: ip("10.1.0.2"), port: port), sourceIP: ip(source),
                identity: principal.flatMap { SPIFFEID(principal: $0) }))
    }

    let front = StringMatch(pattern: "cluster.local/ns/web/sa/front")

    @Test("Without policies everything is allowed")
    func noPolicy() {
        #expect(verdict([]) == .allow(policy: nil))
        #expect(verdict([], from: nil) == .allow(policy: nil))
    }

    @Test("DENY is asked before ALLOW, and each answer names its policy")
    func order() {
        let allow = policy("shop/allow", .allow, .init(from: [source { $0.principals = [front] }]))
        let deny = policy("shop/deny", .deny, .init(to: [ports([8080])]))
        #expect(verdict([allow]) == .allow(policy: name("shop/allow")))
        #expect(verdict([allow, deny]) == .deny(.policyDeny, policy: name("shop/deny")))
        #expect(verdict([deny], port: 9090) == .allow(policy: nil))
        #expect(
            verdict([allow], from: "cluster.local/ns/web/sa/other") == .deny(.policyNoAllow, policy: name("shop/allow"))
        )
    }

    @Test("An ALLOW without rules denies, a DENY without rules does nothing, a rule without parts matches all")
    func emptiness() {
        #expect(verdict([policy("shop/a", .allow)]) == .deny(.policyNoAllow, policy: name("shop/a")))
        #expect(verdict([policy("shop/a", .deny)]) == .allow(policy: nil))
        #expect(verdict([policy("shop/a", .allow, .init())]) == .allow(policy: name("shop/a")))
        #expect(verdict([policy("shop/a", .deny, .init())], from: nil) == .deny(.policyDeny, policy: name("shop/a")))
        // An entry without constraints matches nothing.
        let empty = AuthorizationPolicy.Rule(from: [.init()], to: [])
        #expect(verdict([policy("shop/a", .allow, empty)]) == .deny(.policyNoAllow, policy: name("shop/a")))
        #expect(verdict([policy("shop/a", .deny, .init(from: [], to: [.init()]))]) == .allow(policy: nil))
    }

    @Test("Plaintext has no identity: positive lists never hold, negative ones are never broken")
    func plaintext() {
        let any = policy("shop/a", .allow, .init(from: [source { $0.principals = [.present] }]))
        #expect(verdict([any], from: nil) == .deny(.policyNoAllow, policy: name("shop/a")))
        #expect(verdict([any]).isAllowed)
        let namespaces = policy("shop/a", .allow, .init(from: [source { $0.namespaces = [.prefix("w")] }]))
        #expect(verdict([namespaces], from: nil) == .deny(.policyNoAllow, policy: name("shop/a")))
        #expect(verdict([namespaces]).isAllowed)
        let notFront = policy("shop/a", .deny, .init(from: [source { $0.notPrincipals = [front] }]))
        #expect(verdict([notFront], from: nil) == .deny(.policyDeny, policy: name("shop/a")))
        #expect(verdict([notFront]).isAllowed)
        // Istio's own way to say STRICT: deny whoever has no principal at all.
        let strict = policy("shop/a", .deny, .init(from: [source { $0.notPrincipals = [.present] }]))
        #expect(!verdict([strict], from: nil).isAllowed && verdict([strict]).isAllowed)
    }

    @Test("Addresses and ports, and what they must not be")
    func addressesAndPorts() throws {
        let block = try #require(CIDR("10.9.0.0/24"))
        let inside = source { $0.ipBlocks = [block] }
        let outside = source { $0.notIPBlocks = [block] }
        for (entry, address, allowed) in [
            (inside, "10.9.0.1", true), (inside, "10.9.1.1", false), (inside, "fd00::1", false),
            (outside, "10.9.0.1", false), (outside, "fd00::1", true),
        ] {
            #expect(verdict([policy("shop/a", .allow, .init(from: [entry]))], ip: address).isAllowed == allowed)
        }
        let rule = AuthorizationPolicy.Rule(to: [ports([80, 81], not: [81]), ports([90])])
        for (port, allowed) in [(80, true), (81, false), (90, true), (91, false)] as [(UInt16, Bool)] {
            #expect(verdict([policy("shop/a", .allow, rule)], port: port).isAllowed == allowed)
        }
    }

    @Test(
        "Scopes reach the workloads they should",
        arguments: [
            ("istio-system/p", PolicyScope.mesh, true), ("shop/p", .namespace, true), ("other/p", .namespace, false),
            ("istio-system/p", .namespace, false), ("shop/p", .selector(["app": "server"]), true),
            ("shop/p", .selector(["app": "server", "tier": "db"]), false),
            ("other/p", .selector(["app": "server"]), false), ("istio-system/p", .selector(["tier": "web"]), true),
            ("shop/p", .services([ObjectName(namespace: "shop", name: "server")]), false),
            ("shop/p", .gateways([ObjectName(namespace: "shop", name: "wp")]), false),
        ])
    func scopes(_ text: String, _ scope: PolicyScope, _ reaches: Bool) {
        #expect(verdict([policy(text, .deny, scope: scope, .init())]).isAllowed == !reaches)
    }

    @Test("STRICT refuses plaintext; the narrowest PeerAuthentication holds; port modes need a selector")
    func peerAuthentication() {
        func peer(
            _ text: String, _ scope: PolicyScope, _ mode: MutualTLSMode?, ports: [UInt16: MutualTLSMode] = [:]
        ) -> PeerAuthentication {
            PeerAuthentication(name: name(text), scope: scope, mode: mode, portModes: ports)
        }
        func refusal(_ peers: [PeerAuthentication], mesh: MutualTLSMode = .permissive, port: UInt16 = 8080) -> Verdict?
        {
            let verdict = verdict([], peers: peers, mesh: mesh, from: nil, port: port)
            return verdict == .allow(policy: nil) ? nil : verdict
        }
        func required(_ policy: String?) -> Verdict { .deny(.mutualTLSRequired, policy: policy.map(name)) }
        let wide = peer("istio-system/default", .mesh, .strict)
        let own = peer("shop/default", .namespace, .permissive)
        let selected = peer("shop/server", .selector(["app": "server"]), .strict)

        #expect(refusal([], mesh: .strict) == required(nil))
        #expect(refusal([peer("istio-system/default", .mesh, .permissive)], mesh: .strict) == nil)
        #expect(refusal([wide]) == required("istio-system/default"))
        #expect(refusal([wide, own]) == nil)
        #expect(refusal([wide, own, selected]) == required("shop/server"))
        // UNSET inherits.
        #expect(refusal([wide, peer("shop/default", .namespace, nil)]) == required("istio-system/default"))
        #expect(refusal([wide, own, peer("shop/server", .selector(["app": "server"]), nil)]) == nil)
        // Ports.
        let byPort = peer("shop/server", .selector(["app": "server"]), nil, ports: [8080: .permissive, 9090: .strict])
        #expect(refusal([wide, byPort]) == nil)
        #expect(refusal([byPort], port: 9090) == required("shop/server"))
        #expect(refusal([wide, byPort], port: 1) == required("istio-system/default"))
        #expect(refusal([peer("shop/default", .namespace, nil, ports: [8080: .strict])]) == nil)
        // Of two, the workload's own namespace, then the first by name.
        let rival = peer("istio-system/a", .selector(["tier": "web"]), .permissive)
        #expect(refusal([rival, selected]) == required("shop/server"))
        #expect(refusal([selected, peer("shop/a", .selector(["tier": "web"]), .permissive)]) == nil)
        // With an identity nothing of this matters.
        #expect(verdict([], peers: [wide, selected], mesh: .strict).isAllowed)
    }

    @Test("A record from an earlier snapshot is judged by today's labels, an unknown one by its own")
    func staleRecords() {
        let deny = policy("shop/p", .deny, scope: .selector(["app": "server"]), .init())
        var old = Self.server
        old.labels = [:]
        #expect(!verdict([deny], to: old).isAllowed)
        #expect(!verdict([deny], to: workload("shop/new", "10.1.0.3", labels: ["app": "server"])).isAllowed)
        #expect(verdict([deny], to: workload("shop/new", "10.1.0.3")).isAllowed)
    }

    @Test("At a waypoint the policies with targetRefs hold, and no others")
    func atWaypoint() {
        let service = name("shop/server")
        let policies = [
            policy("shop/node", .deny, .init()),
            policy("shop/svc", .allow, scope: .services([service]), .init(from: [source { $0.principals = [front] }])),
            policy(
                "shop/gw", .deny, scope: .gateways([name("shop/wp")]),
                .init(from: [source { $0.namespaces = [.exact("bad")] }])),
        ]
        let mesh = MeshSnapshot(authorizationPolicies: policies)
        func verdict(_ principal: String, gateway: String = "shop/wp", service: String = "shop/server") -> Verdict {
            mesh.authorize(
                atWaypoint: name(gateway), service: name(service), address: socket("10.96.0.1:80"),
                sourceIP: ip("10.9.0.1"), identity: SPIFFEID(principal: principal))
        }
        #expect(verdict("cluster.local/ns/web/sa/front") == .allow(policy: name("shop/svc")))
        #expect(verdict("cluster.local/ns/web/sa/other") == .deny(.policyNoAllow, policy: name("shop/svc")))
        #expect(verdict("cluster.local/ns/bad/sa/front") == .deny(.policyDeny, policy: name("shop/gw")))
        #expect(verdict("cluster.local/ns/bad/sa/x", gateway: "shop/other", service: "shop/x") == .allow(policy: nil))
    }
}
