/// Reads the labels that bind services and workloads to waypoints.
///
/// A label on the object decides before one on its Namespace; `none` unbinds. `istio.io/waypoint-for` on the Gateway
/// says what it takes: `service` (when absent), `workload`, `all` or `none`. A binding to a Gateway that does not exist
/// still binds: traffic that was meant to pass a waypoint must not go around it because somebody deleted the Gateway.
struct WaypointBindings {
    private enum Kind { case service, workload }

    let namespaces: [String: Namespace]
    let gateways: [Gateway]
    let gatewayByName: [ObjectName: Int]

    func waypoint(of service: Service) -> ObjectName? {
        // The Service in front of a waypoint must not lead through a waypoint.
        if service.labels[Labels.gatewayName] != nil { return nil }
        return waypoint(labels: service.labels, namespace: service.name.namespace, kind: .service)
    }

    func waypoint(of workload: Workload) -> ObjectName? {
        if workload.waypointOf != nil { return nil }
        return waypoint(labels: workload.labels, namespace: workload.name.namespace, kind: .workload)
    }

    private func waypoint(labels: [String: String], namespace: String, kind: Kind) -> ObjectName? {
        if let name = labels[Labels.useWaypoint], !name.isEmpty {
            return accepted(target(name, labels: labels, namespace: namespace), kind: kind, whenMissing: true)
        }
        let inherited = namespaces[namespace]?.labels ?? [:]
        guard let name = inherited[Labels.useWaypoint], !name.isEmpty else { return nil }
        // What a missing Gateway would take is not known; services are the default, so only they stay bound.
        return accepted(
            target(name, labels: inherited, namespace: namespace), kind: kind, whenMissing: kind == .service)
    }

    private func target(_ name: String, labels: [String: String], namespace: String) -> ObjectName? {
        if name == "none" { return nil }
        return ObjectName(namespace: labels[Labels.useWaypointNamespace] ?? namespace, name: name)
    }

    private func accepted(_ name: ObjectName?, kind: Kind, whenMissing: Bool) -> ObjectName? {
        guard let name else { return nil }
        guard let position = gatewayByName[name] else { return whenMissing ? name : nil }
        let accepts =
            switch gateways[position].labels[Labels.waypointFor] ?? "service" {
            case "all": true
            case "workload": kind == .workload
            case "none": false
            default: kind == .service
            }
        return accepts ? name : nil
    }
}
