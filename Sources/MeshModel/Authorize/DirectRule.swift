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

extension MeshSnapshot {
    /// What the kernel of `node` may decide by itself about connections from `source` to the addresses of `destination`;
    /// nil: nothing, the proxy decides all of them.
    ///
    /// It may where both are captured on this node, no waypoint is bound to the destination, and the policies that hold
    /// for the destination ask for no more than an identity and a port. Then a connection is direct exactly where
    /// `authorize` allows it. Whatever is refused is the proxy's to refuse, with a reason.
    public func directRule(from source: Workload, to destination: Workload, node: String) -> DirectRule? {
        guard settings.sameNode == .direct, source.name != destination.name,
            isCaptured(source, node: node), isCaptured(destination, node: node),
            let position = index.workloadByName[destination.name], index.workloadWaypoint[position] == nil,
            // The proxy may take an address for another object's: it knows better.
            destination.addresses.allSatisfy({
                index.workloadByAddress[$0] == position && index.serviceByAddress[$0] == nil
            }),
            let named = portsNamed(for: position)
        else { return nil }
        func isAllowed(_ port: UInt16) -> Bool {
            guard let address = destination.addresses.first else { return false }
            let request = AuthorizationRequest(
                destination: destination, address: SocketAddress(ip: address, port: port), sourceIP: address,
                identity: source.identity)
            // DNS by TCP is captured where it goes through the proxy.
            return !ProxyPort.isRecursive(port) && port != ProxyPort.domain && authorize(request).isAllowed
        }
        // Any port that nobody names stands for all of those.
        guard let other = (1...UInt16.max).first(where: { !named.contains($0) }) else { return nil }
        let rest = isAllowed(other)
        let exceptions = named.filter { isAllowed($0) != rest }.sorted()
        guard exceptions.count <= DirectRule.maximumExceptions, rest || !exceptions.isEmpty else { return nil }
        return DirectRule(
            isDirect: rest, exceptions: exceptions,
            isAccelerated: acceleration(of: source) == .sockmap && acceleration(of: destination) == .sockmap)
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

    /// The ports that a decision about a workload may hang on, with the proxy's own; nil when it may hang on the
    /// client's address as well, which the kernel does not look at.
    private func portsNamed(for position: Int) -> Set<UInt16>? {
        var ports: Set<UInt16> = [
            ProxyPort.outbound, ProxyPort.inboundPlaintext, ProxyPort.tunnel, ProxyPort.dns, ProxyPort.domain,
        ]
        let rules = policies.authorization[position]
        for policy in rules.deny + rules.allow {
            for rule in authorizationPolicies[policy].rules {
                if rule.from.contains(where: { !$0.ipBlocks.isEmpty || !$0.notIPBlocks.isEmpty }) { return nil }
                for operation in rule.to { ports.formUnion(operation.ports + operation.notPorts) }
            }
        }
        return ports
    }
}
