extension MeshSnapshot {
    /// Decides where a connection that `source` opened to `destination` goes. `node` is the node that asks.
    ///
    /// In order: the proxy's own ports, the caller's own addresses, service addresses, workload addresses; everything
    /// else passes as it is. Endpoints are chosen uniformly at random among the healthy ones.
    public func resolve(
        from source: Workload, to destination: SocketAddress, node: String,
        using chance: inout some RandomNumberGenerator
    ) -> Resolution {
        let isOwn = source.addresses.contains(destination.ip)
        let found = index.workloadByAddress[destination.ip]
        if ProxyPort.isRecursive(destination.port) {
            if isOwn || destination.ip.isLoopback || found.map({ index.meshed[$0] }) ?? false {
                return .refuse(.recursiveCall, Destination(workload: found.map { workloads[$0] }))
            }
        }
        if isOwn { return .passthrough(destination) }
        if let position = index.serviceByAddress[destination.ip] {
            return resolve(
                service: position, from: source, to: destination, node: node, using: &chance)
        }
        guard let found else { return .passthrough(destination) }
        let known = Destination(workload: workloads[found])
        if let waypoint = index.workloadWaypoint[found], source.waypointOf != waypoint {
            return throughWaypoint(waypoint, to: destination, known, using: &chance)
        }
        return direct(to: found, at: destination, known, node: node)
    }

    /// Chooses an endpoint of a backend for a waypoint: never through a waypoint again, never `.local`. Of an endpoint
    /// with several addresses one of the family of `preferred` is taken, else its first.
    public func resolveBackend(
        _ name: ObjectName, port: UInt16, family preferred: IPAddress?,
        using chance: inout some RandomNumberGenerator
    ) -> Resolution {
        guard let position = index.serviceByName[name] else { return .refuse(.noBackend, Destination()) }
        return endpoint(ofService: position, port: port, preferring: preferred, node: nil, using: &chance)
    }

    private func resolve(
        service position: Int, from source: Workload, to destination: SocketAddress, node: String,
        using chance: inout some RandomNumberGenerator
    ) -> Resolution {
        let service = services[position]
        if let waypoint = index.serviceWaypoint[position], source.waypointOf != waypoint {
            guard let port = service.ports.first(where: { $0.port == destination.port }) else {
                return .refuse(.unknownPort, Destination(service: service))
            }
            return throughWaypoint(
                waypoint, to: destination, Destination(service: service, servicePort: port), using: &chance)
        }
        return endpoint(
            ofService: position, port: destination.port, preferring: destination.ip, node: node, using: &chance)
    }

    /// `node` nil: the asker captures nothing.
    private func endpoint(
        ofService position: Int, port: UInt16, preferring preferred: IPAddress?, node: String?,
        using chance: inout some RandomNumberGenerator
    ) -> Resolution {
        let service = services[position]
        var known = Destination(service: service)
        guard let portPosition = service.ports.firstIndex(where: { $0.port == port }) else {
            return .refuse(.unknownPort, known)
        }
        known.servicePort = service.ports[portPosition]
        guard let chosen = index.portEndpoints[position][portPosition].randomElement(using: &chance) else {
            return .refuse(.noHealthyUpstream, known)
        }
        let workload = workloads[chosen.workload]
        known.workload = workload
        let address = SocketAddress(ip: workload.address(preferring: preferred), port: chosen.port)
        // A service whose target port is the proxy's: the far proxy would refuse it anyway.
        if index.meshed[chosen.workload], ProxyPort.isRecursive(chosen.port) { return .refuse(.recursiveCall, known) }
        return direct(to: chosen.workload, at: address, known, node: node)
    }

    private func direct(to position: Int, at address: SocketAddress, _ known: Destination, node: String?) -> Resolution
    {
        let workload = workloads[position]
        guard index.meshed[position] else { return .plain(address, known) }
        if settings.sameNode != .tunnel, let node, isCaptured(workload, node: node) {
            return .local(address, workload, known)
        }
        return .tunnel(
            Tunnel(
                peer: SocketAddress(ip: address.ip, port: ProxyPort.tunnel), authority: address,
                identity: workload.identity, workload: workload),
            known)
    }

    /// Never around a waypoint: with no healthy instance the connection is refused.
    private func throughWaypoint(
        _ waypoint: ObjectName, to destination: SocketAddress, _ known: Destination,
        using chance: inout some RandomNumberGenerator
    ) -> Resolution {
        guard let chosen = index.waypointInstances[waypoint]?.randomElement(using: &chance) else {
            return .refuse(.waypointUnavailable, known)
        }
        let instance = workloads[chosen]
        return .tunnel(
            Tunnel(
                peer: SocketAddress(ip: instance.address(preferring: destination.ip), port: ProxyPort.tunnel),
                authority: destination, identity: instance.identity, workload: instance, viaWaypoint: waypoint),
            known)
    }
}

extension Workload {
    /// `preferred` itself when it is one of the workload's addresses, else the first of its family, else the first.
    /// Only called for workloads that have an address.
    func address(preferring preferred: IPAddress?) -> IPAddress {
        guard let preferred, !addresses.contains(preferred) else { return preferred ?? addresses[0] }
        return addresses.first { $0.isIPv4 == preferred.isIPv4 } ?? addresses[0]
    }
}
