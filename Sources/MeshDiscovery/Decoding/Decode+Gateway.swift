import MeshModel

/// A waypoint with what later checks have to know.
struct GatewayRecord {
    var gateway: Gateway
    /// `allowedRoutes.namespaces.from: Same`: who else names it is refused.
    var sameNamespaceOnly = false
    let manifest: Manifest
}

extension Manifest {
    static let gatewayClass = "culvert-waypoint"
    private static let waypointPort = 15008

    func gateway() -> GatewayRecord {
        var record = GatewayRecord(gateway: Gateway(name: name, labels: labels), manifest: self)
        if let field = spec.required("gatewayClassName", Self.gatewayClass) {
            _ = field.value(Self.gatewayClass) { $0 == Self.gatewayClass ? $0 : nil }
        }
        let kinds = ["service", "workload", "all", "none"]
        if let field = labelFields[Labels.waypointFor], let what = labels[Labels.waypointFor], !kinds.contains(what) {
            field.fail("expected service, workload, all or none, found \"\(what)\"")
        }
        if let items = spec.optional("listeners")?.someItems("a listener with port 15008 and protocol HBONE") {
            if items.count > 1 {
                items[1].fail("expected one listener: a waypoint listens on 15008 with HBONE only")
            }
            for item in items { readListener(item, record: &record) }
        }
        spec.refuse("addresses", reason: "addresses; a waypoint's addresses are those of its Workloads")
        spec.refuse("allowedListeners", "backendTLS", "tls")
        // What a cluster would put on the waypoint's pods; in files the Workloads say it themselves.
        if let fields = spec.optional("infrastructure")?.fields() {
            fields.ignore("labels", "annotations")
            fields.refuse("parametersRef")
            fields.end()
        }
        spec.end()
        return record
    }

    private func readListener(_ item: Field, record: inout GatewayRecord) {
        guard let fields = item.fields("a listener") else { return }
        _ = fields.required("name", "the listener's name")?.value(Names.subdomain) { Names.isSubdomain($0) ? $0 : nil }
        let port = Self.waypointPort
        _ = fields.required("port", "\(port)")?.integer(port...port, "\(port), where waypoints listen")
        _ = fields.required("protocol", "HBONE")?.value("HBONE") { $0 == "HBONE" ? $0 : nil }
        if let allowed = fields.optional("allowedRoutes")?.fields() {
            if let namespaces = allowed.optional("namespaces")?.fields() {
                if let from = namespaces.optional("from") {
                    switch from.text("All or Same") {
                    case "All", nil: break
                    case "Same": record.sameNamespaceOnly = true
                    case "Selector": from.refuse("allowedRoutes from: Selector; expected All or Same")
                    default: from.fail("expected All or Same, found \(from.node.summary)")
                    }
                }
                namespaces.refuse("selector")
                namespaces.end()
            }
            allowed.refuse("kinds")
            allowed.end()
        }
        fields.refuse("hostname", "tls")
        fields.end()
    }
}
