/// How two workloads of one node talk.
public enum SameNodeMode: String, Hashable, Sendable, CaseIterable {
    /// Without a proxy, where policy lets the kernel decide; else through the node proxy (T1).
    case direct
    /// Through the node proxy, no TLS between two of its own workloads (T0).
    case proxy
    /// TLS even inside one node.
    case tunnel
}

/// How direct connections between two workloads that both ask for it travel.
public enum AccelerationMode: String, Hashable, Sendable, CaseIterable {
    /// By TCP (T1).
    case off
    /// From socket to socket, where the kernel is fit for it (T2).
    case sockmap
}

/// The embedded certificate authority's files, as paths relative to the configuration's folder unless absolute.
public struct CertificateAuthorityFiles: Hashable, Sendable {
    public var certificate: String
    public var key: String

    public init(certificate: String, key: String) {
        self.certificate = certificate
        self.key = key
    }
}

/// The `culvert.dev/v1alpha1 Mesh` object: one per mesh, every field has a default.
public struct MeshSettings: Hashable, Sendable {
    public var trustDomain: String = "cluster.local"
    /// The DNS domain of service names: `SERVICE.NAMESPACE.svc.DOMAIN`.
    public var clusterDomain: String = "cluster.local"
    public var rootNamespace: String = "istio-system"
    public var mutualTLS: MutualTLSMode = .permissive
    public var sameNode: SameNodeMode = .direct
    /// Of workloads that do not say it themselves.
    public var acceleration: AccelerationMode = .off
    /// Whether workloads' DNS questions are answered by the node proxy, where a workload does not say otherwise.
    public var dnsCapture = true
    public var authority: CertificateAuthorityFiles?
    public var limits = Limits()

    public init() {}
}
