import MeshModel

/// A policy with the fields that later checks point at.
struct PolicyRecord<Policy> {
    var policy: Policy
    var selector: Field?
    var targets: [(kind: String, ObjectName, Field)] = []
    let manifest: Manifest
}

extension Manifest {
    func authorizationPolicy(rootNamespace: String) -> PolicyRecord<AuthorizationPolicy> {
        let target = readTarget(rootNamespace: rootNamespace, acceptsReferences: true)
        var action = AuthorizationPolicy.Action.allow
        if let field = spec.optional("action"), let text = field.text("ALLOW or DENY") {
            if let known = AuthorizationPolicy.Action(rawValue: text) {
                action = known
            } else if text == "AUDIT" || text == "CUSTOM" {
                field.refuse("action \(text); expected ALLOW or DENY")
            } else {
                field.fail("expected ALLOW or DENY, found \(field.node.summary)")
            }
        }
        if let text = annotations["istio.io/dry-run"], text != "false" {
            report.add(
                .error, field: "metadata.annotations",
                "not supported yet: istio.io/dry-run; the policy would be enforced"
            )
        }
        let rules = (spec.optional("rules")?.items() ?? []).compactMap(readRule)
        spec.refuse("provider")
        spec.end()
        let policy = AuthorizationPolicy(name: name, scope: target.scope, action: action, rules: rules)
        return PolicyRecord(policy: policy, selector: target.selector, targets: target.references, manifest: self)
    }

    func peerAuthentication(rootNamespace: String) -> PolicyRecord<PeerAuthentication> {
        let target = readTarget(rootNamespace: rootNamespace, acceptsReferences: false)
        var policy = PeerAuthentication(name: name, scope: target.scope, mode: nil)
        if let mtls = spec.optional("mtls")?.fields("a mapping with mode") { policy.mode = Self.readMode(mtls) }
        if let field = spec.optional("portLevelMtls"), let ports = field.fields("a mapping of ports to modes") {
            if target.selector == nil { field.fail("expected a selector beside portLevelMtls") }
            for (key, field) in ports.all() {
                guard let port = UInt16(key), port > 0, String(port) == key else {
                    field.fail("expected a port from 1 to 65535 as the key, found \"\(key)\"")
                    continue
                }
                if let mode = field.fields("a mapping with mode").flatMap(Self.readMode) {
                    policy.portModes[port] = mode
                }
            }
        }
        spec.end()
        return PolicyRecord(policy: policy, selector: target.selector, manifest: self)
    }

    private static func readMode(_ fields: Fields) -> MutualTLSMode? {
        defer { fields.end() }
        guard let field = fields.optional("mode"), let text = field.text("PERMISSIVE, STRICT or UNSET") else {
            return nil
        }
        if let mode = MutualTLSMode(rawValue: text) { return mode }
        switch text {
        case "UNSET": break
        case "DISABLE": field.refuse("mode DISABLE; a workload leaves the mesh with protocol: TCP")
        default: field.fail("expected PERMISSIVE, STRICT or UNSET, found \(field.node.summary)")
        }
        return nil
    }
}

// MARK: Scope

extension Manifest {
    private struct Target {
        var scope: PolicyScope
        var selector: Field?
        var references: [(kind: String, ObjectName, Field)] = []
    }

    /// Istio's rules: a selector without labels selects everything, like none; without a selector a policy of the root
    /// namespace is for the whole mesh.
    private func readTarget(rootNamespace: String, acceptsReferences: Bool) -> Target {
        var target = Target(scope: name.namespace == rootNamespace ? .mesh : .namespace)
        if let field = spec.optional("selector"), let fields = field.fields("a mapping with matchLabels") {
            let labels = fields.optional("matchLabels")?.textMap() ?? [:]
            fields.refuse("matchExpressions")
            fields.end()
            if !labels.isEmpty {
                target.scope = .selector(labels)
                target.selector = field
            }
        }
        guard acceptsReferences else { return target }
        var references: [Field] = []
        if let field = spec.optional("targetRefs") { references = field.someItems("a Service or a Gateway") ?? [] }
        if let field = spec.optional("targetRef") { references.append(field) }
        if let first = references.first, target.selector != nil {
            first.fail("expected either selector or targetRefs, found both")
        }
        target.references = references.compactMap(readPolicyTarget)
        let services = target.references.filter { $0.kind == "Service" }.map(\.1)
        let gateways = target.references.filter { $0.kind == "Gateway" }.map(\.1)
        if !services.isEmpty && !gateways.isEmpty {
            references.first?.refuse("Services and Gateways in the targetRefs of one policy; write two policies")
        }
        if !services.isEmpty { target.scope = .services(services) }
        if !gateways.isEmpty { target.scope = .gateways(gateways) }
        return target
    }

    private func readPolicyTarget(_ item: Field) -> (kind: String, ObjectName, Field)? {
        guard let fields = item.fields("a reference to a Service or a Gateway") else { return nil }
        defer { fields.end() }
        let group = fields.optional("group")
        let kindField = fields.required("kind", "Service or Gateway")
        if let field = fields.optional("namespace"), let text = field.text(), text != name.namespace {
            field.fail("expected the policy's own namespace \(name.namespace), found \(field.node.summary)")
        }
        let text = fields.required("name", "the name of a Service or a Gateway")?.value(Names.subdomain) {
            Names.isSubdomain($0) ? $0 : nil
        }
        guard let kindField, let kind = kindField.text("Service or Gateway") else { return nil }
        let groups: [String]
        switch kind {
        case "Service": groups = ["", "core"]
        case "Gateway": groups = ["gateway.networking.k8s.io"]
        case "GatewayClass", "ServiceEntry":
            kindField.refuse("targetRefs of kind \(kind); expected Service or Gateway")
            return nil
        default:
            kindField.fail("expected Service or Gateway, found \(kindField.node.summary)")
            return nil
        }
        let groupText = group.map { $0.text("\"\(groups[0])\"") ?? groups[0] } ?? ""
        if !groups.contains(groupText) {
            (group ?? item).fail("expected group \"\(groups[0])\" for kind \(kind), found \"\(groupText)\"")
        }
        guard let text else { return nil }
        return (kind, ObjectName(namespace: name.namespace, name: text), item)
    }
}

// MARK: Rules

extension Manifest {
    private func readRule(_ item: Field) -> AuthorizationPolicy.Rule? {
        guard let fields = item.fields("a rule with from and to") else { return nil }
        var rule = AuthorizationPolicy.Rule()
        for entry in fields.optional("from")?.someItems("a source") ?? [] {
            guard let wrapper = entry.fields("a mapping with source") else { continue }
            let source = wrapper.required("source", "a mapping with principals, namespaces or ipBlocks")
            if let source, let value = readSource(source) { rule.from.append(value) }
            wrapper.end()
        }
        for entry in fields.optional("to")?.someItems("an operation") ?? [] {
            guard let wrapper = entry.fields("a mapping with operation") else { continue }
            let operation = wrapper.required("operation", "a mapping with ports")
            if let operation, let value = readOperation(operation) { rule.to.append(value) }
            wrapper.end()
        }
        fields.refuse("when")
        fields.end()
        return rule
    }

    private func readSource(_ field: Field) -> AuthorizationPolicy.Source? {
        guard let fields = field.fields("a source") else { return nil }
        var source = AuthorizationPolicy.Source()
        let accounts = fields.optional("serviceAccounts")
        let notAccounts = fields.optional("notServiceAccounts")
        let principals = fields.optional("principals")
        let namespaces = fields.optional("namespaces")
        source.principals = principals.map(Self.readPrincipals) ?? []
        source.notPrincipals = fields.optional("notPrincipals").map(Self.readPrincipals) ?? []
        source.namespaces = namespaces.map(Self.readNamespaces) ?? []
        source.notNamespaces = fields.optional("notNamespaces").map(Self.readNamespaces) ?? []
        source.ipBlocks = fields.optional("ipBlocks").map(Self.readBlocks) ?? []
        source.notIPBlocks = fields.optional("notIpBlocks").map(Self.readBlocks) ?? []
        if let accounts {
            // Both would have to hold, but accounts are stored as principals, of which any suffices.
            if principals != nil || namespaces != nil {
                accounts.fail("expected serviceAccounts without principals and namespaces beside it (as in Istio)")
            }
            source.principals += readAccounts(accounts)
        }
        if let notAccounts { source.notPrincipals += readAccounts(notAccounts) }
        fields.refuse("requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks")
        fields.end()
        // An empty source would match nothing in Istio's data plane and everything in a reader's mind.
        if case .mapping(let entries) = field.node.content, entries.isEmpty {
            field.fail("expected at least one of: principals, namespaces, serviceAccounts, ipBlocks or their not-forms")
        }
        return source
    }

    private func readOperation(_ field: Field) -> AuthorizationPolicy.Operation? {
        guard let fields = field.fields("an operation") else { return nil }
        var operation = AuthorizationPolicy.Operation()
        operation.ports = fields.optional("ports").map(Self.readPorts) ?? []
        operation.notPorts = fields.optional("notPorts").map(Self.readPorts) ?? []
        fields.refuse("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
        fields.end()
        if case .mapping(let entries) = field.node.content, entries.isEmpty {
            field.fail("expected at least one of: ports, notPorts")
        }
        return operation
    }

    private static func readPrincipals(_ field: Field) -> [StringMatch] {
        (field.someItems("a principal") ?? []).compactMap { item in
            let expected = "TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT, or a part of it with * at one end"
            guard let text = item.text(expected) else { return nil }
            if text.hasPrefix("spiffe://") {
                item.fail("expected a principal without spiffe://, found \(item.node.summary)")
                return nil
            }
            return readPattern(item, text, expected) { SPIFFEID(principal: $0) != nil }
        }
    }

    private static func readNamespaces(_ field: Field) -> [StringMatch] {
        (field.someItems("a namespace") ?? []).compactMap { item in
            let expected = "the name of a namespace, or a part of it with * at one end"
            guard let text = item.text(expected) else { return nil }
            return readPattern(item, text, expected) { Names.isLabel($0) }
        }
    }

    /// `*`, `start*`, `*end`, or something exact that can exist at all: a policy that can never match is a mistake.
    private static func readPattern(
        _ item: Field, _ text: String, _ expected: String, isExact: (String) -> Bool
    ) -> StringMatch? {
        let stars = text.utf8.count { $0 == UInt8(ascii: "*") }
        let isPattern = stars == 1 && (text.hasPrefix("*") || text.hasSuffix("*"))
        guard isPattern || (stars == 0 && isExact(text)) else {
            item.fail("expected \(expected), found \(item.node.summary)")
            return nil
        }
        return StringMatch(pattern: text)
    }

    /// `NAMESPACE/ACCOUNT`, or `ACCOUNT` of the policy's namespace, whatever the trust domain. A trust domain holds no
    /// slash, so the end of the principal decides.
    private func readAccounts(_ field: Field) -> [StringMatch] {
        (field.someItems("a service account") ?? []).compactMap { item in
            item.value("NAMESPACE/ACCOUNT or ACCOUNT") { text in
                let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
                guard parts.count <= 2, let account = parts.last, Names.isSubdomain(account) else { return nil }
                let namespace = parts.count == 2 ? parts[0] : name.namespace
                return Names.isLabel(namespace) ? .suffix("/ns/\(namespace)/sa/\(account)") : nil
            }
        }
    }

    private static func readBlocks(_ field: Field) -> [CIDR] {
        (field.someItems("an IP address or CIDR block") ?? []).compactMap { item in
            item.value("an IP address or a CIDR block like 10.0.0.0/8") { CIDR($0) }
        }
    }

    /// Istio writes ports as text; a number means the same.
    private static func readPorts(_ field: Field) -> [UInt16] {
        (field.someItems("a port") ?? []).compactMap { item in
            if item.node.scalarKind == .integer { return item.port() }
            return item.value("a port from 1 to 65535") { text in
                UInt16(text).flatMap { $0 > 0 && String($0) == text ? $0 : nil }
            }
        }
    }
}
