internal import CMeshABI
public import MeshModel

/// Tells of questions that capture brought to the DNS server of one workload whom they were meant for. May be asked
/// from any thread.
public struct DNSOrigins: Sendable {
    private let source: Source

    private enum Source: Sendable {
        /// L0, L1: the address it came to is an alias of the server (dns.bpf.c).
        case aliases(BPFMap<UInt32, culvert_address>)
        /// L2, L3: the packet filter translated it, and remembers.
        case table(ConnectionTable)
    }

    init(aliases: BPFMap<UInt32, culvert_address>) { source = .aliases(aliases) }
    init(_ table: ConnectionTable) { source = .table(table) }

    /// The server that an application of the workload meant; nil: whoever it was asked the proxy itself.
    /// - Parameters:
    ///   - from: who asked, as the proxy's socket sees it.
    ///   - address: where the question arrived.
    ///   - isLocal: it came over lo.
    public func server(from: SocketAddress, to address: IPAddress, isLocal: Bool) -> IPAddress? {
        switch source {
        case .aliases(let servers):
            // The address is all there is to know it by, and others may send to it.
            guard isLocal, let number = Self.number(of: address) else { return nil }
            return servers.value(for: number)?.ip
        case .table(let table):
            // Only what applications inside send is translated. The kernel counts what is sent to an own address as
            // coming from the address's device, so `isLocal` says nothing.
            let destination = table.destination(
                from: from, to: SocketAddress(ip: address, port: CaptureConstants.dnsPort))
            return destination?.port == UInt16(CULVERT_PORT_DOMAIN) ? destination?.ip : nil
        }
    }

    /// Of an alias; nil when the address is none.
    static func number(of alias: IPAddress) -> UInt32? {
        let number = UInt32(truncatingIfNeeded: alias.low)
        if alias.isIPv4 {
            return number & ~CULVERT_DNS_ALIAS_MASK == CULVERT_DNS_ALIAS_V4 ? number & CULVERT_DNS_ALIAS_MASK : nil
        }
        let prefix = UInt64(CULVERT_DNS_PREFIX_0) << 32 | UInt64(CULVERT_DNS_PREFIX_1)
        return alias.high == prefix && alias.low <= CULVERT_DNS_ALIAS_MASK ? number : nil
    }
}
