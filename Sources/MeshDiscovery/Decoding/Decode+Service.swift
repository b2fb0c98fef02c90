import MeshModel

/// A service with what later checks have to know.
struct ServiceRecord {
    var service: Service
    var addresses: [(IPAddress, Field)] = []
    /// Ports that carry HTTP/2: plain TCP without a waypoint, not supported behind one.
    var http2: [Field] = []
    let manifest: Manifest
}

extension Manifest {
    func namespace() -> Namespace {
        spec.ignore("finalizers")
        spec.end()
        readMeshLabels()
        return Namespace(name: name.name, labels: labels)
    }

    func service() -> ServiceRecord {
        readMeshLabels()
        var record = ServiceRecord(service: Service(name: name, labels: labels), manifest: self)
        readServiceKind()
        record.addresses = readClusterIPs()
        record.service.addresses = record.addresses.map(\.0)
        record.service.selector = spec.optional("selector")?.textMap() ?? [:]
        readServicePorts(into: &record)
        refuseServiceFeatures()
        spec.end()
        return record
    }

    private func readServiceKind() {
        guard let field = spec.optional("type"), let type = field.text() else { return }
        switch type {
        case "ClusterIP", "NodePort", "LoadBalancer": break
        case "ExternalName": field.refuse("Service type ExternalName")
        default: field.fail("expected ClusterIP, NodePort or LoadBalancer, found \(field.node.summary)")
        }
    }

    /// `clusterIPs`, or the one `clusterIP`; when both are given the first must be the same (as in Kubernetes).
    private func readClusterIPs() -> [(IPAddress, Field)] {
        let single = spec.optional("clusterIP").flatMap { field in field.text().map { (text: $0, field: field) } }
        let list = spec.optional("clusterIPs")?.items("a list of IP addresses") ?? []
        if let single, let first = list.first, case .scalar(let text, _) = first.node.content, text != single.text {
            first.fail("expected clusterIP (\(single.text)) as the first one, found \(first.node.summary)")
        }
        let fields = list.isEmpty ? single.map { [$0.field] } ?? [] : list
        var seen: Set<IPAddress> = []
        return fields.compactMap { field in
            // Headless: "None"; not assigned: "".
            if case .scalar(let text, _) = field.node.content, text == "None" || text.isEmpty { return nil }
            guard let address = field.hostAddress() else { return nil }
            if !seen.insert(address).inserted { field.fail("expected each address once, found \(address) again") }
            return (address, field)
        }
    }

    private func readServicePorts(into record: inout ServiceRecord) {
        guard let field = spec.optional("ports") else {
            if !record.addresses.isEmpty { _ = spec.required("ports", "a list of the service's ports") }
            return
        }
        guard let items = field.someItems("a port of the service") else { return }
        var names: Set<String> = []
        var numbers: Set<String> = []
        for item in items {
            guard let port = readServicePort(item, isOnly: items.count == 1, record: &record) else { continue }
            if !names.insert(port.value.name).inserted {
                item.fail("expected each port name once, found \"\(port.value.name)\" again")
            }
            if !numbers.insert("\(port.value.port)/\(port.protocol)").inserted {
                item.fail("expected each port once, found \(port.value.port)/\(port.protocol) again")
            }
            if port.protocol == "TCP" {
                record.service.ports.append(port.value)
            } else {
                item.warn("has no effect: \(port.protocol) is not captured, it passes by the mesh as it is")
            }
        }
    }

    private func readServicePort(
        _ item: Field, isOnly: Bool, record: inout ServiceRecord
    ) -> (value: ServicePort, protocol: String)? {
        guard let fields = item.fields("a port of the service") else { return nil }
        let nameField = isOnly ? fields.optional("name") : fields.required("name", "a name, as there are several ports")
        let name = nameField?.value(Names.label) { Names.isLabel($0) ? $0 : nil } ?? ""
        let number = fields.required("port", "a port from 1 to 65535")?.port()
        let targetField = fields.optional("targetPort")
        let target = targetField.flatMap(Self.targetPort)
        let transport = fields.optional("protocol").map { field in
            field.value("TCP, UDP or SCTP") { ["TCP", "UDP", "SCTP"].contains($0) ? $0 : nil } ?? "TCP"
        }
        let protocolField = fields.optional("appProtocol")
        let carried = CarriedProtocol(appProtocol: protocolField?.text(), portName: name)
        if carried == .http2 { record.http2.append(protocolField ?? nameField ?? item) }
        fields.ignore("nodePort")
        fields.end()
        guard let number else { return nil }
        let port = ServicePort(
            name: name, port: number, target: target, appProtocol: carried == .http1 ? .http1 : .tcp)
        return (port, transport ?? "TCP")
    }

    private static func targetPort(_ field: Field) -> ServicePort.Target? {
        if field.node.scalarKind == .text {
            let expected = "a port from 1 to 65535 or the name of a port of the workloads"
            return field.value(expected) { Names.isPortName($0) ? .name($0) : nil }
        }
        return field.port().map { .number($0) }
    }

    private func refuseServiceFeatures() {
        func isText(_ wanted: String) -> (Field) -> Bool {
            { field in
                if case .scalar(let text, _) = field.node.content { return text == wanted }
                return false
            }
        }
        spec.refuse("sessionAffinity", reason: "sessionAffinity other than None", unless: isText("None"))
        spec.refuse("internalTrafficPolicy", reason: "internalTrafficPolicy: Local", unless: isText("Cluster"))
        spec.refuse(
            "publishNotReadyAddresses", reason: "publishNotReadyAddresses: true",
            unless: { $0.node.scalarKind == .boolean(false) })
        spec.refuse("trafficDistribution", "externalIPs", "externalName")
        // What the cluster does at its edge does not change what we do inside.
        spec.ignore(
            "allocateLoadBalancerNodePorts", "externalTrafficPolicy", "healthCheckNodePort", "ipFamilies",
            "ipFamilyPolicy", "loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges",
            "sessionAffinityConfig")
    }
}

/// Istio's protocol selection: `appProtocol`, else the port name up to the first hyphen.
private enum CarriedProtocol {
    case tcp
    case http1
    case http2

    init(appProtocol: String?, portName: String) {
        switch appProtocol?.lowercased() {
        case "http": self = .http1
        case "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss", "http2", "grpc", "grpc-web": self = .http2
        case .some: self = .tcp
        case nil:
            switch portName.prefix(while: { $0 != "-" }) {
            case "http": self = .http1
            case "http2", "grpc": self = .http2
            default: self = .tcp
            }
        }
    }
}
