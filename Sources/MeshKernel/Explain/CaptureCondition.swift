internal import CMeshABI
public import MeshModel
internal import Synchronization

/// What the kernel's maps say of one captured workload now, which may be less than the daemon wants.
public struct CaptureCondition: Hashable, Sendable {
    /// The proxy's sockets that have their place in the map: `outbound`, `inbound`, `tunnel`, `dns`.
    public let listeners: [CaptureExplanation.Listener]
    public let capturesDNS: Bool
    /// An earlier daemon captured it, and this one does not serve it yet.
    public let isAwaited: Bool
}

extension KernelCapture {
    /// nil: the workload is not captured.
    public func condition(of workload: ObjectName) -> CaptureCondition? {
        guard let record = state.withLock({ $0.workloads[workload] }) else { return nil }
        let capturesDNS = objects.dns.pods.value(for: record.handle.cookie) != nil
        let ports: [ListenerRole: UInt16] = [
            .outbound: CaptureConstants.outboundPort, .inbound: CaptureConstants.inboundPort,
            .tunnel: CaptureConstants.tunnelPort, .dns: CaptureConstants.dnsPort,
        ]
        let listeners = ListenerRole.allCases.compactMap { role -> CaptureExplanation.Listener? in
            // Without capture nobody asks the DNS server.
            guard let port = ports[role], role != .dns || capturesDNS else { return nil }
            return CaptureExplanation.Listener(
                role: "\(role)", port: port,
                isPresent: objects.listeners.value(for: role.key(slot: record.handle.slot)) != nil)
        }
        return CaptureCondition(
            listeners: listeners, capturesDNS: capturesDNS, isAwaited: record.namespace == nil)
    }

    /// The cgroups that are there of those whose connections are health probes.
    public var agentCgroups: [String] { agent.paths.filter { Files.inode($0) != nil } }

    /// Where the hooks are: the cgroup, and the directory of the pins.
    public var place: String { "cgroup \(attachPoint), pinned in \(pins.directory)" }
}
