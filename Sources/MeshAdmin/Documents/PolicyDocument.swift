import MeshModel

/// Scopes in the words of `/snapshot`.
struct ScopeDocument: Encodable {
    let kind: String
    var labels: [String: String]?
    var targets: [String]?

    init(_ scope: PolicyScope) {
        switch scope {
        case .mesh: kind = "mesh"
        case .namespace: kind = "namespace"
        case .selector(let selector):
            kind = "selector"
            labels = selector
        case .services(let names):
            kind = "services"
            targets = names.map(\.description)
        case .gateways(let names):
            kind = "gateways"
            targets = names.map(\.description)
        }
    }
}

struct AuthorizationPolicyDocument: Encodable {
    struct Rule: Encodable {
        let from: [[String: [String]]]
        let to: [[String: [UInt16]]]

        init(_ rule: AuthorizationPolicy.Rule) {
            from = rule.from.map { source in
                let lists = [
                    "principals": source.principals.map(\.pattern),
                    "notPrincipals": source.notPrincipals.map(\.pattern),
                    "namespaces": source.namespaces.map(\.pattern),
                    "notNamespaces": source.notNamespaces.map(\.pattern),
                    "ipBlocks": source.ipBlocks.map(\.description),
                    "notIpBlocks": source.notIPBlocks.map(\.description),
                ]
                return lists.filter { !$0.value.isEmpty }
            }
            to = rule.to.map { ["ports": $0.ports, "notPorts": $0.notPorts].filter { !$0.value.isEmpty } }
        }
    }

    let name: String
    let action: String
    let scope: ScopeDocument
    let rules: [Rule]

    init(_ policy: AuthorizationPolicy) {
        name = policy.name.description
        action = policy.action.rawValue
        scope = ScopeDocument(policy.scope)
        rules = policy.rules.map(Rule.init)
    }
}

struct PeerAuthenticationDocument: Encodable {
    let name: String
    let scope: ScopeDocument
    let mode: String
    let portModes: [String: String]

    init(_ policy: PeerAuthentication) {
        name = policy.name.description
        scope = ScopeDocument(policy.scope)
        mode = policy.mode?.rawValue ?? "UNSET"
        portModes = Dictionary(uniqueKeysWithValues: policy.portModes.map { (String($0.key), $0.value.rawValue) })
    }
}
