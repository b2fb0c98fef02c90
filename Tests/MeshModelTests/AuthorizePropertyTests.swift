import MeshModel
import Testing

/// The slow and obvious reading of how Istio orders policies: every policy is looked at, nothing is indexed, and
/// plaintext rules are found by walking from narrow to wide.
private struct Model {
    let settings: MeshSettings
    let policies: [AuthorizationPolicy]
    let peers: [PeerAuthentication]

    func verdict(_ request: AuthorizationRequest) -> Verdict {
        if request.identity == nil, let refusal = refusal(request) { return refusal }
        let mine = policies.filter { covers($0.scope, of: $0.name, request.destination) }
        for policy in mine where policy.action == .deny && matches(policy, request) {
            return .deny(.policyDeny, policy: nil)
        }
        let allows = mine.filter { $0.action == .allow }
        if allows.isEmpty || allows.contains(where: { matches($0, request) }) { return .allow(policy: nil) }
        return .deny(.policyNoAllow, policy: nil)
    }

    func covers(_ scope: PolicyScope, of policy: ObjectName, _ workload: Workload) -> Bool {
        switch scope {
        case .mesh: true
        case .namespace: policy.namespace == workload.name.namespace
        case .selector(let labels):
            (policy.namespace == workload.name.namespace || policy.namespace == settings.rootNamespace)
                && labels.allSatisfy { key, value in workload.labels[key] == value }
        case .services, .gateways: false
        }
    }

    func refusal(_ request: AuthorizationRequest) -> Verdict? {
        func width(_ peer: PeerAuthentication) -> Int {
            switch peer.scope {
            case .selector: peer.name.namespace == request.destination.name.namespace ? 0 : 1
            case .namespace: 2
            default: 3
            }
        }
        let mine = peers.filter { covers($0.scope, of: $0.name, request.destination) }
            .sorted { (width($0), $0.name) < (width($1), $1.name) }
        var seen: Set<Int> = []
        for peer in mine {
            // One object of each width holds; the two kinds of selector are one width.
            guard seen.insert(max(1, width(peer))).inserted else { continue }
            if width(peer) <= 1, let mode = peer.portModes[request.address.port] {
                return mode == .strict ? .deny(.mutualTLSRequired, policy: nil) : nil
            }
            if let mode = peer.mode { return mode == .strict ? .deny(.mutualTLSRequired, policy: nil) : nil }
        }
        return settings.mutualTLS == .strict ? .deny(.mutualTLSRequired, policy: nil) : nil
    }

    func matches(_ policy: AuthorizationPolicy, _ request: AuthorizationRequest) -> Bool {
        policy.rules.contains { rule in
            let from = rule.from.isEmpty || rule.from.contains { matches($0, request) }
            let to = rule.to.isEmpty || rule.to.contains { matches($0, request.address.port) }
            return from && to
        }
    }

    func matches(_ source: AuthorizationPolicy.Source, _ request: AuthorizationRequest) -> Bool {
        func holds<P>(_ positive: [P], _ negative: [P], _ test: (P) -> Bool) -> Bool? {
            if positive.isEmpty && negative.isEmpty { return nil }
            return (positive.isEmpty || positive.contains(where: test)) && !negative.contains(where: test)
        }
        let parts = [
            holds(source.principals, source.notPrincipals) { pattern in
                request.identity.map { pattern.matches($0.principal) } ?? false
            },
            holds(source.namespaces, source.notNamespaces) { pattern in
                request.identity.map { pattern.matches($0.namespace) } ?? false
            },
            holds(source.ipBlocks, source.notIPBlocks) { $0.contains(request.sourceIP) },
        ].compactMap(\.self)
        return !parts.isEmpty && parts.allSatisfy(\.self)
    }

    func matches(_ operation: AuthorizationPolicy.Operation, _ port: UInt16) -> Bool {
        if operation.ports.isEmpty { return !operation.notPorts.isEmpty && !operation.notPorts.contains(port) }
        return operation.ports.contains(port) && !operation.notPorts.contains(port)
    }
}

extension Verdict {
    /// Which of several policies of one kind answered is a matter of order, not of meaning.
    fileprivate var withoutName: Verdict {
        switch self {
        case .allow: .allow(policy: nil)
        case .deny(let reason, _): .deny(reason, policy: nil)
        }
    }
}

/// Draws small meshes out of few values, so that everything collides with everything.
struct Generator {
    var chance: SeededRandom

    mutating func some<T>(_ values: [T], upTo most: Int = 2) -> [T] {
        (0..<Int.random(in: 0...most, using: &chance)).map { _ in one(values) }
    }

    mutating func one<T>(_ values: [T]) -> T { values[Int.random(in: 0..<values.count, using: &chance)] }

    /// Most lists of a policy are empty.
    mutating func rarely<T>(_ values: [T]) -> [T] { one([true, false, false]) ? some(values) : [] }

    static let namespaces = ["a", "b", "istio-system"]
    static let patterns = ["*", "a", "b*", "*a", "td/ns/a/sa/x", "td/ns/a/*", "*/sa/x"].map(StringMatch.init(pattern:))
    static let blocks = ["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "fd00::/8"].compactMap { CIDR($0) }
    static let ports: [UInt16] = [80, 81, 82]
    static let labels: [[String: String]] = [["app": "x"], ["app": "y"], ["app": "x", "v": "1"], [:]]

    mutating func source() -> AuthorizationPolicy.Source {
        var source = AuthorizationPolicy.Source()
        source.principals = rarely(Self.patterns)
        source.notPrincipals = rarely(Self.patterns)
        source.namespaces = rarely(Self.patterns)
        source.notNamespaces = rarely(Self.patterns)
        source.ipBlocks = rarely(Self.blocks)
        source.notIPBlocks = rarely(Self.blocks)
        return source
    }

    mutating func operation() -> AuthorizationPolicy.Operation {
        var operation = AuthorizationPolicy.Operation()
        operation.ports = rarely(Self.ports)
        operation.notPorts = rarely(Self.ports)
        return operation
    }

    mutating func scope() -> PolicyScope {
        one([.mesh, .namespace, .selector(one(Self.labels)), .services([name("a/s")]), .gateways([name("a/g")])])
    }

    mutating func policy(_ number: Int) -> AuthorizationPolicy {
        let rules = (0..<Int.random(in: 0...2, using: &chance)).map { _ in
            AuthorizationPolicy.Rule(
                from: (0..<Int.random(in: 0...2, using: &chance)).map { _ in source() },
                to: (0..<Int.random(in: 0...2, using: &chance)).map { _ in operation() })
        }
        return AuthorizationPolicy(
            name: name("\(one(Self.namespaces))/p\(number)"), scope: scope(), action: one([.allow, .deny]), rules: rules
        )
    }

    mutating func peer(_ number: Int) -> PeerAuthentication {
        PeerAuthentication(
            name: name("\(one(Self.namespaces))/q\(number)"), scope: scope(), mode: one([nil, .strict, .permissive]),
            portModes: one([true, false]) ? [one(Self.ports): one([.strict, .permissive])] : [:])
    }
}

@Suite("authorize against a slow obvious model")
struct AuthorizePropertyTests {
    @Test("They agree on every small mesh", arguments: 0..<20 as Range<UInt64>)
    func agrees(seed: UInt64) {
        var draw = Generator(chance: SeededRandom(seed))
        for _ in 0..<100 {
            var settings = MeshSettings()
            settings.mutualTLS = draw.one([.permissive, .strict])
            let workloads = (0..<4).map { number in
                workload(
                    "\(draw.one(Generator.namespaces))/w\(number)", "10.0.0.\(number)",
                    labels: draw.one(Generator.labels))
            }
            let policies = (0..<Int.random(in: 0...4, using: &draw.chance)).map { draw.policy($0) }
            let peers = (0..<Int.random(in: 0...4, using: &draw.chance)).map { draw.peer($0) }
            let model = Model(settings: settings, policies: policies, peers: peers)
            let mesh = MeshSnapshot(
                settings: settings, workloads: workloads, authorizationPolicies: policies, peerAuthentications: peers)
            for workload in workloads {
                let identity = SPIFFEID(
                    trustDomain: "td", namespace: draw.one(["a", "b"]), serviceAccount: draw.one(["x", "y"]))
                let request = AuthorizationRequest(
                    destination: workload,
                    address: SocketAddress(ip: workload.addresses[0], port: draw.one(Generator.ports)),
                    sourceIP: draw.one(["10.0.0.1", "192.0.2.1", "fd00::1"].map(ip)),
                    identity: draw.one([nil, identity]))
                #expect(
                    mesh.authorize(request).withoutName == model.verdict(request), "\(request) \(policies) \(peers)")
            }
        }
    }
}
