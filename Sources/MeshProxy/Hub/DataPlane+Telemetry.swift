public import MeshTelemetry
internal import MeshModel
internal import MeshRuntime

extension DataPlane {
    /// Every open connection of every core, in no order.
    public func connections() async -> [OpenConnection] {
        await collect { $0.openConnectionList() }.flatMap { $0 }
    }

    /// Takes what the cores counted since the last time.
    public func collectMetrics(into registry: MetricsRegistry) async {
        for counted in await collect({ $0.telemetry.metrics.drain() }) { registry.absorb(counted) }
    }
}

extension ProxyCore {
    fileprivate func openConnectionList() -> [OpenConnection] {
        var list: [OpenConnection] = []
        connections.forEach { list.append($0.openConnection) }
        return list
    }
}

extension ProxiedConnection {
    fileprivate var openConnection: OpenConnection {
        let isInbound = record.direction == .inbound
        let own = isInbound ? record.destinationWorkload : record.sourceWorkload
        return OpenConnection(
            workload: own?.name ?? ObjectName(namespace: "", name: ""), direction: isInbound ? .inbound : .outbound,
            source: record.source, originalDestination: record.destination, actualDestination: record.tunnelAuthority,
            isTunnel: record.tunnelAuthority != nil,
            peerIdentity: isInbound ? record.sourceIdentity : record.destinationIdentity,
            bytesFromClient: bytesForward, bytesToClient: bytesBackward,
            ageMilliseconds: (hub.core.now - record.startedAt) / 1_000_000)
    }
}
