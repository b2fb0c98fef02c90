/// What the mesh itself knows of a name that a workload asks DNS for.
public enum NameKnowledge: Hashable, Sendable {
    /// The addresses of a known name, of both families; none of a family means "no such record", not "no such name".
    /// - Parameter alias: the name they belong to, where the question was that name with a search domain behind it.
    case addresses([IPAddress], alias: String?)
    /// There is no such name, and nobody else may say there is (RFC 6761 §6.4).
    case nonexistent
}

extension MeshSnapshot {
    /// Whether the node proxy answers this workload's DNS questions.
    public func capturesDNS(_ workload: Workload) -> Bool {
        workload.annotations[Annotations.dnsCapture].map { $0 == "true" } ?? settings.dnsCapture
    }

    /// Looks a name up for `client`; nil for what the mesh does not know: an upstream may, names under the cluster's
    /// own domain included, since Kubernetes knows more services than a node is told of.
    ///
    /// In order, as ambient meshes do it:
    /// 1. `localhost` and `invalid` (RFC 6761 §6.3, §6.4);
    /// 2. the hostname of a workload;
    /// 3. `SERVICE`, `SERVICE.NS`, `SERVICE.NS.svc` and `SERVICE.NS.svc.DOMAIN`: the virtual addresses, or of a
    ///    headless service the healthy endpoints in the client's network. `POD.` before any of them but the first is
    ///    one endpoint of a headless service, by its hostname or its name; `POD.SERVICE` too;
    /// 4. a hostname with a search domain of the client's namespace behind it, as a resolver's search list makes them.
    ///    Service names are not tried this way: their search list leads to one of the forms above in its turn, and
    ///    `pod-0.web.default.svc.cluster.local` must never be taken for service `pod-0` of namespace `web`.
    ///
    /// - Parameter name: lower case, without the final dot.
    public func lookUp(_ name: String, for client: Workload) -> NameKnowledge? {
        if name == "localhost" || name.hasSuffix(".localhost") {
            return .addresses([IPAddress(v4: 0x7f00_0001), IPAddress(high: 0, low: 1)], alias: nil)
        }
        if name == "invalid" || name.hasSuffix(".invalid") { return .nonexistent }
        if let addresses = addresses(ofHostname: name, for: client) { return .addresses(addresses, alias: nil) }
        if let addresses = addresses(ofServiceName: name, for: client) { return .addresses(addresses, alias: nil) }
        let domain = settings.clusterDomain
        for search in [".\(client.name.namespace).svc.\(domain)", ".svc.\(domain)", ".\(domain)"]
        where name.hasSuffix(search) {
            let stripped = String(name.dropLast(search.count))
            if let addresses = addresses(ofHostname: stripped, for: client) {
                return .addresses(addresses, alias: stripped)
            }
        }
        return nil
    }

    private func addresses(ofHostname name: String, for client: Workload) -> [IPAddress]? {
        index.workloadsByHostname[name].map { positions in addresses(of: positions.map { workloads[$0] }, for: client) }
    }

    private func addresses(ofServiceName name: String, for client: Workload) -> [IPAddress]? {
        var labels = name.split(separator: ".", maxSplits: 8, omittingEmptySubsequences: false)[...]
        let own = client.name.namespace[...]
        let domain = settings.clusterDomain
        if name.hasSuffix(".svc.\(domain)") {
            labels = name.dropLast(domain.count + 5).split(separator: ".", omittingEmptySubsequences: false)[...]
            // In full there is nothing to guess.
            guard labels.count == 2 || labels.count == 3 else { return nil }
        } else if labels.count > 2, labels.last == "svc" {
            labels.removeLast()
        } else if labels.count == 1 {
            labels.append(own)
        } else if labels.count == 2, service(labels[0], in: labels[1]) == nil {
            labels.append(own)
        }
        switch labels.count {
        case 2: return service(labels[0], in: labels[1]).map { addresses(ofService: $0, for: client) }
        case 3: return endpoint(labels[0], of: labels[1], in: labels[2], for: client)
        default: return nil
        }
    }

    private func service(_ name: Substring, in namespace: Substring) -> Service? {
        service(named: ObjectName(namespace: String(namespace), name: String(name)))
    }

    private func addresses(ofService service: Service, for client: Workload) -> [IPAddress] {
        service.addresses.isEmpty
            ? addresses(of: endpoints(ofService: service.name), for: client) : service.addresses
    }

    private func endpoint(
        _ name: Substring, of service: Substring, in namespace: Substring, for client: Workload
    ) -> [IPAddress]? {
        guard let service = self.service(service, in: namespace), service.addresses.isEmpty else { return nil }
        let named = endpoints(ofService: service.name).filter {
            if let hostname = $0.hostname { hostname == name } else { $0.name.name == name }
        }
        return named.isEmpty ? nil : addresses(of: named, for: client)
    }

    /// Of healthy workloads in the client's network, which alone it can reach by address.
    private func addresses(of candidates: some Sequence<Workload>, for client: Workload) -> [IPAddress] {
        candidates.filter { $0.healthy && $0.network == client.network }.flatMap(\.addresses)
    }
}
