/// Which ports of a workload another one of the same node may reach without a proxy in the path (tier T1): one answer
/// for every port, and the ports for which the other one holds.
public struct DirectRule: Hashable, Sendable {
    public var isDirect: Bool
    /// In ascending order, at most `maximumExceptions`.
    public var exceptions: [UInt16]
    /// Both workloads ask for acceleration (tier T2): what is direct may bypass TCP.
    public var isAccelerated: Bool

    /// What the kernel's map has room for; a workload with more different ports is reached through the proxy.
    public static let maximumExceptions = 28

    public init(isDirect: Bool, exceptions: [UInt16] = [], isAccelerated: Bool = false) {
        self.isDirect = isDirect
        self.exceptions = exceptions
        self.isAccelerated = isAccelerated
    }

    public func isDirect(port: UInt16) -> Bool { exceptions.contains(port) != isDirect }
}

/// Why the proxy decides about all connections from one workload to another.
public enum DirectObstacle: Error, Hashable, Sendable, CustomStringConvertible {
    /// The mesh wants no direct connections.
    case sameNodeMode(SameNodeMode)
    case sameWorkload
    /// This node does not capture it.
    case notCaptured(ObjectName)
    /// Traffic to the destination has to pass it.
    case waypoint(ObjectName)
    /// Another object of the mesh has this address of the destination, too.
    case sharedAddress(IPAddress)
    /// It asks for client addresses, which the kernel does not look at.
    case addressPolicy(ObjectName)
    /// So many ports are decided otherwise than the rest.
    case tooManyPorts(Int)
    /// Policy refuses every port; the proxy does it with a reason.
    case nothingAllowed

    public var description: String {
        switch self {
        case .sameNodeMode(let mode): "Mesh.spec.sameNode is \(mode.rawValue)"
        case .sameWorkload: "it is the workload itself"
        case .notCaptured(let name): "\(name) is not captured on this node"
        case .waypoint(let name): "the waypoint \(name) is bound to it"
        case .sharedAddress(let address): "\(address) is the address of another object as well"
        case .addressPolicy(let name): "AuthorizationPolicy \(name) asks for client addresses (ipBlocks)"
        case .tooManyPorts(let count):
            "policy decides otherwise for \(count) of its ports; the kernel knows \(DirectRule.maximumExceptions) at most"
        case .nothingAllowed: "policy allows none of its ports"
        }
    }
}

extension MeshSnapshot {
    /// What the kernel of `node` may decide by itself about connections from `source` to the addresses of `destination`;
    /// nil: nothing, the proxy decides all of them.
    public func directRule(from source: Workload, to destination: Workload, node: String) -> DirectRule? {
        try? decideDirect(from: source, to: destination, node: node)
    }

    /// `directRule`, or why there is none.
    ///
    /// The kernel may decide where both are captured on this node, no waypoint is bound to the destination, and the
    /// policies that hold for the destination ask for no more than an identity and a port. Then a connection is direct
    /// exactly where `authorize` allows it. Whatever is refused is the proxy's to refuse, with a reason.
    public func decideDirect(
        from source: Workload, to destination: Workload, node: String
    ) throws(DirectObstacle) -> DirectRule {
        guard settings.sameNode == .direct else { throw .sameNodeMode(settings.sameNode) }
        guard source.name != destination.name else { throw .sameWorkload }
        for workload in [source, destination] where !isCaptured(workload, node: node) {
            throw .notCaptured(workload.name)
        }
        guard let position = index.workloadByName[destination.name] else { throw .notCaptured(destination.name) }
        if let waypoint = index.workloadWaypoint[position] { throw .waypoint(waypoint) }
        // The proxy may take an address for another object's: it knows better.
        for address in destination.addresses
        where index.workloadByAddress[address] != position || index.serviceByAddress[address] != nil {
            throw .sharedAddress(address)
        }
        let named = try portsNamed(for: position)
        func isAllowed(_ port: UInt16) -> Bool {
            guard let address = destination.addresses.first else { return false }
            let request = AuthorizationRequest(
                destination: destination, address: SocketAddress(ip: address, port: port), sourceIP: address,
                identity: source.identity)
            // DNS by TCP is captured where it goes through the proxy.
            return !ProxyPort.isRecursive(port) && port != ProxyPort.domain && authorize(request).isAllowed
        }
        // Any port that nobody names stands for all of those.
        guard let other = (1...UInt16.max).first(where: { !named.contains($0) }) else {
            throw .tooManyPorts(named.count)
        }
        let rest = isAllowed(other)
        let exceptions = named.filter { isAllowed($0) != rest }.sorted()
        guard exceptions.count <= DirectRule.maximumExceptions else { throw .tooManyPorts(exceptions.count) }
        guard rest || !exceptions.isEmpty else { throw .nothingAllowed }
        return DirectRule(
            isDirect: rest, exceptions: exceptions,
            isAccelerated: acceleration(of: source) == .sockmap && acceleration(of: destination) == .sockmap)
    }

    /// Whether an open connection between two workloads of a node, which goes in clear, may go on. Beside what policy
    /// says, it may not once the mesh wants such connections encrypted, or a waypoint is bound that it would go around:
    /// to the destination's own address or, where the application asked for a service, to one that has this endpoint.
    public func authorizeOpen(_ request: AuthorizationRequest, from source: Workload, isByService: Bool) -> Verdict {
        let verdict = authorize(request)
        guard verdict.isAllowed, let position = index.workloadByName[request.destination.name] else { return verdict }
        let waypoints =
            isByService
            ? serviceWaypoints(at: position, port: request.address.port)
            : [index.workloadWaypoint[position]].compactMap(\.self)
        let isBound = waypoints.contains { $0 != source.waypointOf }
        return settings.sameNode == .tunnel || isBound ? .deny(.policyChanged, policy: nil) : verdict
    }

    /// Of the services that have this endpoint.
    private func serviceWaypoints(at workload: Int, port: UInt16) -> [ObjectName] {
        services.indices.compactMap { service in
            let isEndpoint = index.portEndpoints[service].contains { endpoints in
                endpoints.contains { $0.workload == workload && $0.port == port }
            }
            return isEndpoint ? index.serviceWaypoint[service] : nil
        }
    }

    /// What a workload asks for, or else the mesh for it.
    public func acceleration(of workload: Workload) -> AccelerationMode {
        workload.acceleration ?? settings.acceleration
    }

    /// For which service addresses the kernel of `node` may choose the endpoint as the proxy would: no waypoint is bound
    /// and every endpoint is captured on this node.
    public func directServices(node: String) -> [SocketAddress: [SocketAddress]] {
        guard settings.sameNode == .direct else { return [:] }
        var found: [SocketAddress: [SocketAddress]] = [:]
        for (address, position) in index.serviceByAddress where index.serviceWaypoint[position] == nil {
            var seen: Set<UInt16> = []
            for (port, endpoints) in zip(services[position].ports, index.portEndpoints[position]) {
                // Of ports that are there twice the first one counts.
                guard seen.insert(port.port).inserted, !endpoints.isEmpty, port.port != ProxyPort.domain else {
                    continue
                }
                let reached = endpoints.compactMap { endpoint -> SocketAddress? in
                    let workload = workloads[endpoint.workload]
                    guard isCaptured(workload, node: node) else { return nil }
                    let own = workload.address(preferring: address)
                    return own.isIPv4 == address.isIPv4 ? SocketAddress(ip: own, port: endpoint.port) : nil
                }
                if reached.count == endpoints.count { found[SocketAddress(ip: address, port: port.port)] = reached }
            }
        }
        return found
    }

    /// The ports that a decision about a workload may hang on, with the proxy's own.
    private func portsNamed(for position: Int) throws(DirectObstacle) -> Set<UInt16> {
        var ports: Set<UInt16> = [
            ProxyPort.outbound, ProxyPort.inboundPlaintext, ProxyPort.tunnel, ProxyPort.dns, ProxyPort.domain,
        ]
        let rules = policies.authorization[position]
        for policy in rules.deny + rules.allow {
            for rule in authorizationPolicies[policy].rules {
                if rule.from.contains(where: { !$0.ipBlocks.isEmpty || !$0.notIPBlocks.isEmpty }) {
                    throw .addressPolicy(authorizationPolicies[policy].name)
                }
                for operation in rule.to { ports.formUnion(operation.ports + operation.notPorts) }
            }
        }
        return ports
    }
}
