/// How the leg from the proxy to a captured application is made, as the capture programs expect it: from the client's
/// own address, with this mark, and over `lo`, so that the lookup program knows it for ours and the application's
/// replies come back to it.
public struct ApplicationLeg: Sendable {
    /// SO_MARK of the socket; the routing rule of the workload's namespace matches it.
    public let mark: UInt32
    /// Without a device the kernel accounts the SYN to the interface that holds the address, and it would be captured.
    static let device: StaticString = "lo"

    public init(mark: UInt32) {
        self.mark = mark
    }
}

/// How capture tells the proxy's sockets inside a workload from the workload's own, where it works by rules of the
/// packet filter.
public struct FilterRules: Sendable {
    /// SO_MARK of every socket but the leg to the application.
    public let mark: UInt32

    public init(mark: UInt32) {
        self.mark = mark
    }
}
