/// How a workload is reached: the opinionated mutual TLS, or plain TCP (not meshed).
public enum TransportProtocol: String, Sendable, CaseIterable {
    case tls = "TLS"
    case tcp = "TCP"
}

/// Where a workload runs; empty strings mean unknown.
public struct Locality: Hashable, Sendable {
    public var region: String
    public var zone: String
    public var subzone: String

    public init(region: String = "", zone: String = "", subzone: String = "") {
        self.region = region
        self.zone = zone
        self.subzone = subzone
    }
}

/// One addressable thing that sends or receives traffic: a pod, or file mode's `Workload`.
public struct Workload: Hashable, Sendable {
    public var name: ObjectName
    public var labels: [String: String]
    public var annotations: [String: String]
    /// At least one; IPv4 and IPv6 may be mixed.
    public var addresses: [IPAddress]
    public var node: String
    public var trustDomain: String
    public var serviceAccount: String
    public var transport: TransportProtocol
    /// Path of the workload's network namespace on its own node; nil where this node does not capture it.
    public var netns: String?
    /// Named container ports, for a Service's named `targetPort`.
    public var namedPorts: [String: UInt16]
    public var hostname: String?
    public var network: String
    public var locality: Locality
    public var healthy: Bool
    /// What of its traffic is the mesh's, where it is captured.
    public var scope: CaptureScope
    /// nil: as the mesh says.
    public var acceleration: AccelerationMode?

    public init(
        name: ObjectName, labels: [String: String] = [:], annotations: [String: String] = [:],
        addresses: [IPAddress], node: String,
        trustDomain: String = "cluster.local", serviceAccount: String = "default",
        transport: TransportProtocol = .tls, netns: String? = nil, namedPorts: [String: UInt16] = [:],
        hostname: String? = nil, network: String = "", locality: Locality = Locality(), healthy: Bool = true,
        scope: CaptureScope = CaptureScope(),
        acceleration: AccelerationMode? = nil
    ) {
        self.name = name
        self.labels = labels
        self.annotations = annotations
        self.addresses = addresses
        self.node = node
        self.trustDomain = trustDomain
        self.serviceAccount = serviceAccount
        self.transport = transport
        self.netns = netns
        self.namedPorts = namedPorts
        self.hostname = hostname
        self.network = network
        self.locality = locality
        self.healthy = healthy
        self.scope = scope
        self.acceleration = acceleration
    }

    public var identity: SPIFFEID {
        SPIFFEID(trustDomain: trustDomain, namespace: name.namespace, serviceAccount: serviceAccount)
    }

    /// The Gateway whose waypoint this workload is (label `gateway.networking.k8s.io/gateway-name`).
    /// A waypoint speaks HBONE itself and is never captured.
    public var waypointOf: ObjectName? {
        labels[Labels.gatewayName].map { ObjectName(namespace: name.namespace, name: $0) }
    }
}

/// Annotation keys of the ecosystem that the mesh reads.
public enum Annotations {
    public static let includeOutboundIPRanges = "traffic.sidecar.istio.io/includeOutboundIPRanges"
    public static let excludeOutboundIPRanges = "traffic.sidecar.istio.io/excludeOutboundIPRanges"
    public static let includeOutboundPorts = "traffic.sidecar.istio.io/includeOutboundPorts"
    public static let excludeOutboundPorts = "traffic.sidecar.istio.io/excludeOutboundPorts"
    public static let includeInboundPorts = "traffic.sidecar.istio.io/includeInboundPorts"
    public static let excludeInboundPorts = "traffic.sidecar.istio.io/excludeInboundPorts"
    public static let bypassInboundCapture = "ambient.istio.io/bypass-inbound-capture"
    /// `true` or `false` on a workload: overrides the mesh's `dnsCapture`.
    public static let dnsCapture = "ambient.istio.io/dns-capture"
}

/// Label keys of the ecosystem that the mesh reads.
public enum Labels {
    public static let dataplaneMode = "istio.io/dataplane-mode"
    public static let useWaypoint = "istio.io/use-waypoint"
    public static let useWaypointNamespace = "istio.io/use-waypoint-namespace"
    public static let waypointFor = "istio.io/waypoint-for"
    public static let gatewayName = "gateway.networking.k8s.io/gateway-name"
}
