import MeshModel

extension ConfigDump {
    struct Policy: Encodable {
        let name: String
        let namespace: String
        let scope: String
        let action: String
        /// Rules, their clauses (all must hold), the clauses' matches (one must).
        let rules: [[[Match]]]

        init(_ policy: AuthorizationPolicy) {
            name = policy.name.name
            namespace = policy.name.namespace
            scope =
                switch policy.scope {
                case .mesh: "Global"
                case .namespace: "Namespace"
                case .selector, .services, .gateways: "WorkloadSelector"
                }
            action =
                switch policy.action {
                case .allow: "Allow"
                case .deny: "Deny"
                }
            rules = policy.rules.map { rule in
                [rule.from.map(Match.init(source:)), rule.to.map(Match.init(operation:))].filter { !$0.isEmpty }
            }
        }
    }

    /// Lists that are empty are left out.
    struct Match: Encodable {
        private var patterns: [String: [Pattern]] = [:]
        private var addresses: [String: [String]] = [:]
        private var ports: [String: [UInt16]] = [:]

        init(source: AuthorizationPolicy.Source) {
            patterns = [
                "principals": source.principals, "notPrincipals": source.notPrincipals,
                "namespaces": source.namespaces, "notNamespaces": source.notNamespaces,
            ].mapValues { $0.map(Pattern.init) }
            addresses = ["sourceIps": source.ipBlocks, "notSourceIps": source.notIPBlocks]
                .mapValues { $0.map(\.description) }
        }

        init(operation: AuthorizationPolicy.Operation) {
            ports = ["destinationPorts": operation.ports, "notDestinationPorts": operation.notPorts]
        }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: AnyKey.self)
            for (name, list) in patterns where !list.isEmpty { try container.encode(list, forKey: AnyKey(name)) }
            for (name, list) in addresses where !list.isEmpty { try container.encode(list, forKey: AnyKey(name)) }
            for (name, list) in ports where !list.isEmpty { try container.encode(list, forKey: AnyKey(name)) }
        }
    }

    /// A map of one key that says how the text is meant.
    struct Pattern: Encodable {
        let match: StringMatch

        init(_ match: StringMatch) { self.match = match }

        func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: AnyKey.self)
            switch match {
            case .exact(let text): try container.encode(text, forKey: AnyKey("Exact"))
            case .prefix(let text): try container.encode(text, forKey: AnyKey("Prefix"))
            case .suffix(let text): try container.encode(text, forKey: AnyKey("Suffix"))
            case .present: try container.encode([String: String](), forKey: AnyKey("Presence"))
            }
        }
    }
}
