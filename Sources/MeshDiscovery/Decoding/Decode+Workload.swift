import MeshModel

/// A workload before the mesh's trust domain is known.
struct WorkloadRecord {
    var workload: Workload
    var addresses: [(IPAddress, Field)]
    var netns: Field?
    let manifest: Manifest
}

extension Manifest {
    func workload(trustDomain: String) -> WorkloadRecord {
        let addresses = readAddresses()
        var workload = Workload(
            name: name, labels: labels, annotations: annotations, addresses: addresses.map(\.0), node: "")
        workload.trustDomain = trustDomain
        let netns = spec.optional("netns")
        workload.netns = netns?.value("an absolute path like /var/run/netns/NAME") { $0.hasPrefix("/") ? $0 : nil }
        let subdomain: (String) -> String? = { Names.isSubdomain($0) ? $0 : nil }
        // Only a captured workload has to say where it runs; what is merely reached may run anywhere.
        let node = netns == nil ? spec.optional("node") : spec.required("node", "the node that captures this netns")
        workload.node = node?.value(Names.subdomain, subdomain) ?? ""
        if let account = spec.optional("serviceAccount") {
            workload.serviceAccount = account.value(Names.subdomain, subdomain) ?? workload.serviceAccount
        }
        let transport = spec.required("protocol", "TLS (mutual TLS) or TCP (not meshed)")
        workload.transport =
            transport?.value("TLS (mutual TLS) or TCP (not meshed)", TransportProtocol.init) ?? .tls
        workload.namedPorts = readPorts()
        workload.hostname = spec.optional("hostname")?.value(Names.subdomain, subdomain)
        if let network = spec.optional("network") {
            workload.network = network.value(Names.subdomain, subdomain) ?? ""
        }
        if let locality = spec.optional("locality")?.fields("a mapping with region, zone and subzone") {
            workload.locality = Self.locality(locality)
        }
        if let healthy = spec.optional("healthy") { workload.healthy = healthy.boolean() ?? true }
        workload.scope = readScope(isCaptured: netns != nil && workload.transport == .tls)
        workload.acceleration = spec.optional("acceleration")?.acceleration()
        spec.end()
        check(workload, transport: transport, netns: netns)
        return WorkloadRecord(workload: workload, addresses: addresses, netns: netns, manifest: self)
    }

    private func check(_ workload: Workload, transport: Field?, netns: Field?) {
        readMeshLabels()
        if let field = annotationFields[Annotations.dnsCapture], let text = annotations[Annotations.dnsCapture],
            text != "true", text != "false"
        {
            field.fail("expected \"true\" or \"false\", found \"\(text)\"")
        }
        if workload.waypointOf != nil, workload.transport == .tcp {
            transport?.fail("expected TLS: a waypoint speaks HBONE")
        } else if workload.transport == .tcp {
            netns?.warn("has no effect: a workload with protocol TCP is not captured")
        }
    }

    private func readAddresses() -> [(IPAddress, Field)] {
        let expected = "the IP addresses of the workload"
        guard let items = spec.required("addresses", "a list of \(expected)")?.someItems(expected) else { return [] }
        var seen: Set<IPAddress> = []
        return items.compactMap { field in
            guard let address = field.hostAddress() else { return nil }
            if !seen.insert(address).inserted { field.fail("expected each address once, found \(address) again") }
            return (address, field)
        }
    }

    private func readPorts() -> [String: UInt16] {
        guard let fields = spec.optional("ports")?.fields("a mapping of port names to numbers") else { return [:] }
        var ports: [String: UInt16] = [:]
        for (key, field) in fields.all() {
            if !Names.isPortName(key) {
                field.fail("expected a port name: at most 15 of a-z, 0-9 and -, with at least one letter")
            }
            if let port = field.port() { ports[key] = port }
        }
        return ports
    }

    private static func locality(_ fields: Fields) -> Locality {
        let locality = Locality(
            region: fields.optional("region")?.text() ?? "", zone: fields.optional("zone")?.text() ?? "",
            subzone: fields.optional("subzone")?.text() ?? "")
        fields.end()
        return locality
    }
}

extension Field {
    /// An address that one host can have.
    func hostAddress() -> IPAddress? {
        let expected = "an IPv4 or IPv6 address"
        guard let address = value(expected, { IPAddress($0) }) else { return nil }
        if address.isUnspecified || address.isMulticast || address.isLoopback {
            fail("expected an address of one host, found \(address) (unspecified, multicast or loopback)")
            return nil
        }
        return address
    }
}

extension Manifest {
    /// Labels whose values we act on.
    func readMeshLabels() {
        if let field = labelFields[Labels.dataplaneMode], let mode = labels[Labels.dataplaneMode],
            mode != "ambient", mode != "none"
        {
            field.fail("expected ambient or none, found \"\(mode)\"")
        }
        for key in [Labels.useWaypoint, Labels.gatewayName] {
            if let field = labelFields[key], let name = labels[key], !Names.isSubdomain(name) {
                field.fail("expected the name of a Gateway, found \"\(name)\"")
            }
        }
        guard let namespace = labelFields[Labels.useWaypointNamespace] else { return }
        if !Names.isLabel(labels[Labels.useWaypointNamespace] ?? "") {
            namespace.fail("expected the name of a namespace, found \(namespace.node.summary)")
        }
        if labels[Labels.useWaypoint] == nil {
            namespace.warn("has no effect without \(Labels.useWaypoint)")
        }
    }
}
