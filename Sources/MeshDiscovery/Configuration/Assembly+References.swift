import MeshModel

/// What objects say about each other. An absent object is a warning: it may come later, and until then the data plane
/// refuses what depends on it. What would silently not do what was asked is an error.
extension Assembly {
    func checkReferences() {
        let snapshot = objects.makeSnapshot(generation: 0)
        checkBindings(snapshot)
        checkGateways(snapshot)
        checkServices(snapshot)
        for record in routes { check(record, snapshot) }
        checkPolicies(authorizationPolicies, snapshot, scope: \.scope)
        checkPolicies(peerAuthentications, snapshot, scope: \.scope)
        checkTargets(snapshot)
        checkWidePeerAuthentications()
    }

    // MARK: Waypoints

    private func checkBindings(_ snapshot: MeshSnapshot) {
        let closed = Set(gateways.filter(\.sameNamespaceOnly).map(\.gateway.name))
        func check(_ manifest: Manifest, namespace: String) {
            guard let field = manifest.labelFields[Labels.useWaypoint], let name = manifest.labels[Labels.useWaypoint],
                name != "none", !name.isEmpty
            else { return }
            let home = manifest.labels[Labels.useWaypointNamespace] ?? namespace
            let gateway = ObjectName(namespace: home, name: name)
            if snapshot.gateway(named: gateway) == nil {
                field.warn("no Gateway \(gateway): traffic will be refused (waypoint_unavailable)")
            } else if closed.contains(gateway), home != namespace {
                field.fail("expected a waypoint of namespace \(namespace): Gateway \(gateway) allows only its own")
            }
        }
        for (namespace, manifest) in namespaces { check(manifest, namespace: namespace.name) }
        for record in services { check(record.manifest, namespace: record.service.name.namespace) }
        for record in workloads { check(record.manifest, namespace: record.workload.name.namespace) }
    }

    private func checkGateways(_ snapshot: MeshSnapshot) {
        var instances: Set<ObjectName> = []
        for record in workloads {
            guard let gateway = record.workload.waypointOf else { continue }
            instances.insert(gateway)
            if snapshot.gateway(named: gateway) == nil {
                record.manifest.labelFields[Labels.gatewayName]?.warn("no Gateway \(gateway)")
            }
        }
        for record in gateways where !instances.contains(record.gateway.name) {
            record.manifest.report.add(
                .warning, field: "",
                "no Workload is labelled \(Labels.gatewayName): \(record.gateway.name.name), so its traffic will be "
                    + "refused (waypoint_unavailable)")
        }
    }

    // MARK: Services and routes

    private func checkServices(_ snapshot: MeshSnapshot) {
        for record in services where snapshot.waypoint(ofService: record.service.name) != nil {
            for field in record.http2 {
                field.refuse("HTTP/2, gRPC and WebSocket behind a waypoint")
            }
        }
    }

    private func check(_ record: HTTPRouteRecord, _ snapshot: MeshSnapshot) {
        for (parent, field) in record.parents {
            guard let service = snapshot.service(named: parent.service) else {
                field.warn("no Service \(parent.service)")
                continue
            }
            if snapshot.waypoint(ofService: parent.service) == nil {
                field.warn("has no effect: Service \(parent.service) is not bound to a waypoint")
            }
            let ports = service.ports.filter { parent.port == nil || $0.port == parent.port }
            if let number = parent.port, ports.isEmpty {
                field.warn("Service \(parent.service) has no port \(number)")
            } else if !ports.contains(where: { $0.appProtocol == .http1 }) {
                field.warn("has no effect: no such port of Service \(parent.service) has appProtocol http")
            }
        }
        for (backend, field) in record.backends {
            guard let service = snapshot.service(named: backend.service) else {
                field.warn("no Service \(backend.service): requests sent to it are answered with 500")
                continue
            }
            if !service.ports.contains(where: { $0.port == backend.port }) {
                field.warn(
                    "Service \(backend.service) has no port \(backend.port): requests sent to it are answered with 500")
            }
        }
    }

    // MARK: Policies

    private func checkPolicies<Policy>(
        _ records: [PolicyRecord<Policy>], _ snapshot: MeshSnapshot, scope: KeyPath<Policy, PolicyScope>
    ) {
        // By one label pair: enough to look at few workloads for each selector.
        var labelled: [String: [Workload]] = [:]
        for workload in snapshot.workloads {
            for (key, value) in workload.labels { labelled["\(key)=\(value)", default: []].append(workload) }
        }
        for record in records {
            guard let field = record.selector, case .selector(let labels) = record.policy[keyPath: scope] else {
                continue
            }
            let namespace = record.manifest.name.namespace
            let isMeshWide = namespace == snapshot.settings.rootNamespace
            let candidates = labels.map { labelled["\($0.key)=\($0.value)", default: []] }
            let fewest = candidates.min { $0.count < $1.count } ?? []
            let isMatched = fewest.contains { workload in
                (isMeshWide || workload.name.namespace == namespace)
                    && labels.allSatisfy { workload.labels[$0.key] == $0.value }
            }
            if !isMatched { field.warn("selects no Workload") }
        }
    }

    private func checkTargets(_ snapshot: MeshSnapshot) {
        for record in authorizationPolicies {
            for (kind, name, field) in record.targets {
                if kind == "Gateway" {
                    if snapshot.gateway(named: name) == nil { field.warn("no Gateway \(name)") }
                } else if snapshot.service(named: name) == nil {
                    field.warn("no Service \(name)")
                } else if snapshot.waypoint(ofService: name) == nil {
                    field.warn("never enforced: Service \(name) is not bound to a waypoint")
                }
            }
        }
    }

    /// Of several for one whole namespace only one can decide.
    private func checkWidePeerAuthentications() {
        var first: [String: ObjectName] = [:]
        for record in peerAuthentications where record.selector == nil {
            let name = record.policy.name
            if let other = first[name.namespace] {
                record.manifest.report.add(
                    .warning, field: "",
                    "PeerAuthentication \(other) covers the same workloads; only one of them decides"
                )
            } else {
                first[name.namespace] = name
            }
        }
    }
}
