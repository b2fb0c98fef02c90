/// The ports the proxy listens on inside a workload's namespace: Istio's, so rules and habits carry over.
public enum MeshPorts {
    public static let outbound: UInt16 = 15001
    public static let inbound: UInt16 = 15006
    public static let tunnel: UInt16 = 15008

    /// Whether a connection to this port would come back to the proxy itself.
    public static func isOurs(_ port: UInt16) -> Bool { port == outbound || port == inbound || port == tunnel }
}
