extension MeshSnapshot {
    /// Whether a connection may reach a workload, as the node proxy in front of it decides: first whether plaintext is
    /// taken, then DENY, then ALLOW. Policies with `targetRefs` are the waypoint's and are not asked here.
    ///
    /// The workload is looked up by name, so a record kept from an earlier snapshot is judged by today's labels.
    public func authorize(_ request: AuthorizationRequest) -> Verdict {
        let rules: PolicyIndex.PolicySet
        let plaintext: PolicyIndex.PlaintextRule
        if let position = index.workloadByName[request.destination.name] {
            (rules, plaintext) = (policies.authorization[position], policies.plaintext[position])
        } else {
            (rules, plaintext) = policies.rules(forUnknown: request.destination)
        }
        if request.identity == nil, let refusal = plaintext.refusal(onPort: request.address.port) { return refusal }
        return decide(
            rules, PolicySubject(identity: request.identity, sourceIP: request.sourceIP, port: request.address.port))
    }

    /// Whether a caller may use a service through a waypoint: the policies whose `targetRefs` name the service or the
    /// waypoint's Gateway. `address` is what the caller asked the waypoint for.
    public func authorize(
        atWaypoint gateway: ObjectName, service: ObjectName, address: SocketAddress, sourceIP: IPAddress,
        identity: SPIFFEID?
    ) -> Verdict {
        var rules = policies.byGateway[gateway] ?? PolicyIndex.PolicySet()
        if let more = policies.byService[service] { rules.formUnion(more) }
        return decide(rules, PolicySubject(identity: identity, sourceIP: sourceIP, port: address.port))
    }

    /// Whether a workload takes plaintext, as a phrase with the objects that say so:
    /// `STRICT (PeerAuthentication default/p), PERMISSIVE on port 80`.
    public func mutualTLSPhrase(of workload: Workload) -> String {
        let rule =
            index.workloadByName[workload.name].map { policies.plaintext[$0] }
            ?? policies.rules(forUnknown: workload).1
        let source = rule.policy.map { "PeerAuthentication \($0)" } ?? "Mesh"
        let ports = rule.portModes.sorted { $0.key < $1.key }.filter { $0.value != rule.mode }
            .map { "\($0.value.rawValue) on port \($0.key)" }
        return (["\(rule.mode.rawValue) (\(source))"] + ports).joined(separator: ", ")
    }

    private func decide(_ rules: PolicyIndex.PolicySet, _ subject: PolicySubject) -> Verdict {
        for position in rules.deny where authorizationPolicies[position].matches(subject) {
            return .deny(.policyDeny, policy: authorizationPolicies[position].name)
        }
        if rules.allow.isEmpty { return .allow(policy: nil) }
        for position in rules.allow where authorizationPolicies[position].matches(subject) {
            return .allow(policy: authorizationPolicies[position].name)
        }
        // Several may cover the workload; the first by name stands for all.
        return .deny(.policyNoAllow, policy: rules.allow.map { authorizationPolicies[$0].name }.min())
    }
}

extension PolicyIndex.PlaintextRule {
    /// A mode for the port decides before the workload's.
    fileprivate func refusal(onPort port: UInt16) -> Verdict? {
        if let portMode = portModes[port] {
            return portMode == .strict ? .deny(.mutualTLSRequired, policy: portPolicy) : nil
        }
        return mode == .strict ? .deny(.mutualTLSRequired, policy: policy) : nil
    }
}
