/// What the predicates of a policy look at, taken apart once per decision.
struct PolicySubject {
    let identity: SPIFFEID?
    let principal: String?
    let sourceIP: IPAddress
    let port: UInt16

    init(identity: SPIFFEID?, sourceIP: IPAddress, port: UInt16) {
        self.identity = identity
        principal = identity?.principal
        self.sourceIP = sourceIP
        self.port = port
    }
}

/// Istio's semantics at layer 4: rules are alternatives, parts of a rule must all hold, entries of a part are
/// alternatives, an entry without any constraint matches nothing.
extension AuthorizationPolicy {
    func matches(_ subject: borrowing PolicySubject) -> Bool {
        for rule in rules where rule.matches(subject) { return true }
        return false
    }
}

extension AuthorizationPolicy.Rule {
    func matches(_ subject: borrowing PolicySubject) -> Bool {
        var held = from.isEmpty
        for source in from where source.matches(subject) {
            held = true
            break
        }
        guard held else { return false }
        if to.isEmpty { return true }
        for operation in to where operation.matches(subject.port) { return true }
        return false
    }
}

extension AuthorizationPolicy.Source {
    private var isEmpty: Bool {
        principals.isEmpty && notPrincipals.isEmpty && namespaces.isEmpty && notNamespaces.isEmpty
            && ipBlocks.isEmpty && notIPBlocks.isEmpty
    }

    /// Without an identity no positive list of principals or namespaces holds, and no negative one is broken.
    func matches(_ subject: borrowing PolicySubject) -> Bool {
        if isEmpty { return false }
        let (principal, namespace, address) = (subject.principal, subject.identity?.namespace, subject.sourceIP)
        if !principals.isEmpty, !principals.containsMatch(of: principal) { return false }
        if notPrincipals.containsMatch(of: principal) { return false }
        if !namespaces.isEmpty, !namespaces.containsMatch(of: namespace) { return false }
        if notNamespaces.containsMatch(of: namespace) { return false }
        if !ipBlocks.isEmpty, !ipBlocks.contains(where: { $0.contains(address) }) { return false }
        if notIPBlocks.contains(where: { $0.contains(address) }) { return false }
        return true
    }
}

extension AuthorizationPolicy.Operation {
    func matches(_ port: UInt16) -> Bool {
        if ports.isEmpty && notPorts.isEmpty { return false }
        if !ports.isEmpty, !ports.contains(port) { return false }
        return !notPorts.contains(port)
    }
}

extension [StringMatch] {
    fileprivate func containsMatch(of value: String?) -> Bool {
        guard let value else { return false }
        for pattern in self where pattern.matches(value) { return true }
        return false
    }
}
