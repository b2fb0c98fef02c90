internal import CMeshABI

/// Numbers the proxy shares with the capture programs; `CMeshABI` is their only source.
public enum CaptureConstants {
    /// SO_MARK of a captured application socket. The proxy never sets it.
    public static let capturedMark: UInt32 = CULVERT_MARK_CAPTURED

    /// SO_MARK of the proxy's leg to the application: a socket made inside the workload's namespace, transparent, bound
    /// to the client's address **and to the device `upstreamDevice`**. The mark brings the leg and, through
    /// `tcp_fwmark_accept`, the application's replies over lo. Without the device the kernel accounts the SYN to the
    /// interface that holds the address, and it would look like one from outside and be captured again.
    public static let upstreamMark: UInt32 = CULVERT_MARK_UPSTREAM
    public static let upstreamDevice = "lo"

    /// SO_MARK of every other socket that the proxy opens inside a workload's namespace at levels L2 and L3: rules tell
    /// the proxy from its workload by it.
    public static let proxyMark: UInt32 = CULVERT_MARK_PROXY

    /// Ports inside a workload's namespace, as Istio's.
    public static let outboundPort = UInt16(CULVERT_PORT_OUTBOUND)
    public static let inboundPort = UInt16(CULVERT_PORT_INBOUND)
    public static let tunnelPort = UInt16(CULVERT_PORT_TUNNEL)
    public static let dnsPort = UInt16(CULVERT_PORT_DNS)

    /// How many workloads one node captures, and how many addresses each may have.
    public static let maximumWorkloads = Int(CULVERT_MAX_PODS)
    public static let maximumAddresses = Int(CULVERT_MAX_OWN_ADDRESSES)

    /// How many endpoints the kernel chooses among.
    public static let maximumServiceEndpoints = Int(CULVERT_MAX_SERVICE_ENDPOINTS)

    /// The version of the maps' layout, part of the pin path.
    public static let abiVersion = Int(CULVERT_ABI_VERSION)
}
