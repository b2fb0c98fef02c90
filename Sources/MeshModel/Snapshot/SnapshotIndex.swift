/// Dictionaries over a snapshot's arrays. Values are positions in those arrays.
struct SnapshotIndex: Sendable {
    /// A place where a service's port can be reached.
    struct Endpoint: Sendable {
        let workload: Int
        let port: UInt16
    }

    private(set) var workloadByAddress: [IPAddress: Int] = [:]
    private(set) var workloadByName: [ObjectName: Int] = [:]
    /// `Workload.hostname`; several workloads may share one.
    private(set) var workloadsByHostname: [String: [Int]] = [:]
    private(set) var serviceByAddress: [IPAddress: Int] = [:]
    private(set) var serviceByName: [ObjectName: Int] = [:]
    private(set) var gatewayByName: [ObjectName: Int] = [:]
    private(set) var capturedByNode: [String: [Int]] = [:]
    /// Healthy TLS workloads of each waypoint.
    private(set) var waypointInstances: [ObjectName: [Int]] = [:]
    /// By workload: reached with mutual TLS.
    private(set) var meshed: [Bool] = []
    /// By service: its waypoint.
    private(set) var serviceWaypoint: [ObjectName?] = []
    /// By workload: the waypoint of its own addresses.
    private(set) var workloadWaypoint: [ObjectName?] = []
    /// By service: healthy workloads behind it.
    private(set) var endpoints: [[Int]] = []
    /// By service, then by position in `Service.ports`: where that port is served. A workload without the named
    /// target port is not among them.
    private(set) var portEndpoints: [[[Endpoint]]] = []

    init(namespaces: [String: Namespace], workloads: [Workload], services: [Service], gateways: [Gateway]) {
        for (position, gateway) in gateways.enumerated() where gatewayByName[gateway.name] == nil {
            gatewayByName[gateway.name] = position
        }
        let bindings = WaypointBindings(namespaces: namespaces, gateways: gateways, gatewayByName: gatewayByName)
        indexWorkloads(workloads, namespaces: namespaces, bindings: bindings)
        indexServices(services, workloads: workloads, bindings: bindings)
    }

    static func isMeshed(_ workload: Workload, in namespaces: [String: Namespace]) -> Bool {
        guard workload.transport == .tls else { return false }
        if workload.waypointOf != nil { return true }
        let mode =
            workload.labels[Labels.dataplaneMode]
            ?? namespaces[workload.name.namespace]?.labels[Labels.dataplaneMode]
        return mode != "none"
    }

    private mutating func indexWorkloads(
        _ workloads: [Workload], namespaces: [String: Namespace], bindings: WaypointBindings
    ) {
        meshed.reserveCapacity(workloads.count)
        workloadWaypoint.reserveCapacity(workloads.count)
        for (position, workload) in workloads.enumerated() {
            let isMeshed = SnapshotIndex.isMeshed(workload, in: namespaces)
            meshed.append(isMeshed)
            workloadWaypoint.append(bindings.waypoint(of: workload))
            guard workloadByName[workload.name] == nil else { continue }
            workloadByName[workload.name] = position
            for address in workload.addresses where workloadByAddress[address] == nil {
                workloadByAddress[address] = position
            }
            if let hostname = workload.hostname { workloadsByHostname[hostname, default: []].append(position) }
            if let waypoint = workload.waypointOf {
                if isMeshed, workload.healthy, !workload.addresses.isEmpty {
                    waypointInstances[waypoint, default: []].append(position)
                }
            } else if isMeshed, workload.netns != nil {
                capturedByNode[workload.node, default: []].append(position)
            }
        }
    }

    private mutating func indexServices(_ services: [Service], workloads: [Workload], bindings: WaypointBindings) {
        let byLabel = LabelIndex(workloads: workloads)
        for (position, service) in services.enumerated() {
            if serviceByName[service.name] == nil {
                serviceByName[service.name] = position
                for address in service.addresses where serviceByAddress[address] == nil {
                    serviceByAddress[address] = position
                }
            }
            serviceWaypoint.append(bindings.waypoint(of: service))
            let behind = byLabel.matches(service.selector, namespace: service.name.namespace).filter {
                workloads[$0].healthy && !workloads[$0].addresses.isEmpty
            }
            endpoints.append(behind)
            portEndpoints.append(
                service.ports.map { port in
                    behind.compactMap { candidate in
                        switch port.target {
                        case .number(let number): Endpoint(workload: candidate, port: number)
                        case .name(let name):
                            workloads[candidate].namedPorts[name].map { Endpoint(workload: candidate, port: $0) }
                        }
                    }
                })
        }
    }
}

/// Workloads by one label pair of one namespace, so that a selector looks only at the shortest of its lists.
struct LabelIndex {
    private struct Key: Hashable {
        let namespace: String
        let label: String
        let value: String
    }

    private let workloads: [Workload]
    private var positions: [Key: [Int]] = [:]

    init(workloads: [Workload]) {
        self.workloads = workloads
        for (position, workload) in workloads.enumerated() {
            for (label, value) in workload.labels {
                positions[Key(namespace: workload.name.namespace, label: label, value: value), default: []]
                    .append(position)
            }
        }
    }

    /// Workloads of the namespace that carry every pair of a Service's selector; an empty selector chooses none.
    func matches(_ selector: [String: String], namespace: String) -> [Int] {
        var shortest: [Int]?
        for (label, value) in selector {
            guard let list = positions[Key(namespace: namespace, label: label, value: value)] else { return [] }
            if list.count < shortest?.count ?? .max { shortest = list }
        }
        return (shortest ?? []).filter { workloads[$0].carries(selector) }
    }
}

extension Workload {
    /// Whether the workload carries every pair of `selector`.
    func carries(_ selector: [String: String]) -> Bool {
        selector.allSatisfy { labels[$0.key] == $0.value }
    }
}
