public import MeshModel

/// What decides, beside the level, how the traffic of a captured workload goes. An obstacle is why something is not so;
/// nil: it is.
public struct CaptureFacts: Hashable, Sendable {
    public var addresses: [IPAddress]
    public var scope: CaptureScope
    public var sameNode: SameNodeMode
    /// To direct connections (tier T1) on this node.
    public var directObstacle: String?
    /// To accelerated ones (tier T2) of this workload.
    public var accelerationObstacle: String?
    /// To capturing the workload's DNS by UDP.
    public var dnsObstacle: String?
    /// For how many ports of services the kernel chooses the endpoint.
    public var kernelServices: Int
    /// Cgroups that are there and whose connections are health probes.
    public var agentCgroups: [String]

    public init(
        addresses: [IPAddress], scope: CaptureScope = CaptureScope(), sameNode: SameNodeMode = .direct,
        directObstacle: String? = nil, accelerationObstacle: String? = nil, dnsObstacle: String? = nil,
        kernelServices: Int = 0, agentCgroups: [String] = []
    ) {
        self.addresses = addresses
        self.scope = scope
        self.sameNode = sameNode
        self.directObstacle = directObstacle
        self.accelerationObstacle = accelerationObstacle
        self.dnsObstacle = dnsObstacle
        self.kernelServices = kernelServices
        self.agentCgroups = agentCgroups
    }

    func has(ipv4: Bool) -> Bool { addresses.contains { $0.isIPv4 == ipv4 } }
}
