/// The policies that hold for each workload, found once per snapshot. Values are positions in the snapshot's arrays.
struct PolicyIndex: Sendable {
    /// DENY and ALLOW apart, because every DENY is asked before any ALLOW.
    struct PolicySet: Sendable {
        var deny: [Int] = []
        var allow: [Int] = []

        mutating func insert(_ position: Int, _ policy: AuthorizationPolicy) {
            switch policy.action {
            case .deny: deny.append(position)
            case .allow: allow.append(position)
            }
        }

        mutating func formUnion(_ other: PolicySet) {
            deny += other.deny
            allow += other.allow
        }
    }

    /// Whether plaintext is taken, and which object says so (nil: the mesh settings).
    struct PlaintextRule: Sendable {
        var mode: MutualTLSMode
        var policy: ObjectName?
        var portModes: [UInt16: MutualTLSMode] = [:]
        var portPolicy: ObjectName?
    }

    /// By workload.
    private(set) var authorization: [PolicySet] = []
    private(set) var plaintext: [PlaintextRule] = []
    private(set) var byService: [ObjectName: PolicySet] = [:]
    private(set) var byGateway: [ObjectName: PolicySet] = [:]
    private let selectors: Selectors

    init(
        settings: MeshSettings, workloads: [Workload], authorizationPolicies: [AuthorizationPolicy],
        peerAuthentications: [PeerAuthentication]
    ) {
        selectors = Selectors(
            settings: settings, authorizationPolicies: authorizationPolicies, peerAuthentications: peerAuthentications)
        for (position, policy) in authorizationPolicies.enumerated() {
            switch policy.scope {
            case .services(let names):
                for name in Set(names) { byService[name, default: PolicySet()].insert(position, policy) }
            case .gateways(let names):
                for name in Set(names) { byGateway[name, default: PolicySet()].insert(position, policy) }
            case .mesh, .namespace, .selector: break
            }
        }
        authorization = workloads.map { selectors.authorization(for: $0) }
        plaintext = workloads.map { selectors.plaintext(for: $0) }
    }

    /// The same for a workload that the snapshot does not hold (any more): slower, by its own labels.
    func rules(forUnknown workload: Workload) -> (PolicySet, PlaintextRule) {
        (selectors.authorization(for: workload), selectors.plaintext(for: workload))
    }
}

extension PolicyIndex {
    /// Policies by the namespace they cover, so that a workload is compared only with those that could cover it.
    private struct Selectors: Sendable {
        struct Selected: Sendable {
            let position: Int
            let labels: [String: String]
        }

        let settings: MeshSettings
        let authorizationPolicies: [AuthorizationPolicy]
        private var meshPolicies = PolicySet()
        private var namespacePolicies: [String: PolicySet] = [:]
        private var selectedPolicies: [String: [Selected]] = [:]
        /// Of several objects of one scope the first by name holds, as none carries its age.
        private var meshPeers: [PeerAuthentication] = []
        private var namespacePeers: [String: [PeerAuthentication]] = [:]
        private var selectedPeers: [String: [PeerAuthentication]] = [:]

        init(
            settings: MeshSettings, authorizationPolicies: [AuthorizationPolicy],
            peerAuthentications: [PeerAuthentication]
        ) {
            self.settings = settings
            self.authorizationPolicies = authorizationPolicies
            for (position, policy) in authorizationPolicies.enumerated() {
                switch policy.scope {
                case .mesh: meshPolicies.insert(position, policy)
                case .namespace:
                    namespacePolicies[policy.name.namespace, default: PolicySet()].insert(position, policy)
                case .selector(let labels):
                    selectedPolicies[policy.name.namespace, default: []]
                        .append(Selected(position: position, labels: labels))
                case .services, .gateways: break
                }
            }
            for policy in peerAuthentications.sorted(by: { $0.name < $1.name }) {
                switch policy.scope {
                case .mesh: meshPeers.append(policy)
                case .namespace: namespacePeers[policy.name.namespace, default: []].append(policy)
                case .selector: selectedPeers[policy.name.namespace, default: []].append(policy)
                case .services, .gateways: break
                }
            }
        }

        /// The workload's own namespace and the root namespace, whose selectors reach the whole mesh.
        private func reach(of workload: Workload) -> [String] {
            let own = workload.name.namespace
            return own == settings.rootNamespace ? [own] : [own, settings.rootNamespace]
        }

        func authorization(for workload: Workload) -> PolicySet {
            var set = meshPolicies
            if let more = namespacePolicies[workload.name.namespace] { set.formUnion(more) }
            for namespace in reach(of: workload) {
                for selected in selectedPolicies[namespace] ?? [] where workload.carries(selected.labels) {
                    set.insert(selected.position, authorizationPolicies[selected.position])
                }
            }
            return set
        }

        func plaintext(for workload: Workload) -> PlaintextRule {
            var rule = PlaintextRule(mode: settings.mutualTLS)
            for policy in [meshPeers.first, namespacePeers[workload.name.namespace]?.first] {
                if let policy, let mode = policy.mode { (rule.mode, rule.policy) = (mode, policy.name) }
            }
            guard let selected = selected(for: workload) else { return rule }
            if let mode = selected.mode { (rule.mode, rule.policy) = (mode, selected.name) }
            // Istio gives port modes a meaning only next to a selector.
            (rule.portModes, rule.portPolicy) = (selected.portModes, selected.name)
            return rule
        }

        private func selected(for workload: Workload) -> PeerAuthentication? {
            for namespace in reach(of: workload) {
                for policy in selectedPeers[namespace] ?? [] {
                    if case .selector(let labels) = policy.scope, workload.carries(labels) { return policy }
                }
            }
            return nil
        }
    }
}
