/// Which connections of a captured workload the mesh takes: all of them, unless its operator keeps some out. What is kept
/// out leaves and arrives as if there were no mesh: in clear text, without an identity and without policy.
///
/// The meaning is that of Istio's annotations `traffic.sidecar.istio.io/…` of the same names.
public struct CaptureScope: Hashable, Sendable {
    /// nil: every address. Otherwise what is in none of them is kept out, unless its port is included.
    public var includedOutbound: [CIDR]?
    public var excludedOutbound: [CIDR]
    /// Taken whatever the address, unless that is excluded by name.
    public var includedOutboundPorts: Set<UInt16>
    public var excludedOutboundPorts: Set<UInt16>
    /// nil: every port but the excluded ones. Otherwise only these, and `excludedInboundPorts` means nothing.
    public var includedInboundPorts: Set<UInt16>?
    public var excludedInboundPorts: Set<UInt16>

    public init(
        includedOutbound: [CIDR]? = nil, excludedOutbound: [CIDR] = [], includedOutboundPorts: Set<UInt16> = [],
        excludedOutboundPorts: Set<UInt16> = [], includedInboundPorts: Set<UInt16>? = nil,
        excludedInboundPorts: Set<UInt16> = []
    ) {
        self.includedOutbound = includedOutbound
        self.excludedOutbound = excludedOutbound
        self.includedOutboundPorts = includedOutboundPorts
        self.excludedOutboundPorts = excludedOutboundPorts
        self.includedInboundPorts = includedInboundPorts
        self.excludedInboundPorts = excludedInboundPorts
    }

    /// Nothing is kept out.
    public var isWhole: Bool { isWholeOutbound && isWholeInbound }
    public var isWholeOutbound: Bool {
        includedOutbound == nil && excludedOutbound.isEmpty && excludedOutboundPorts.isEmpty
    }
    public var isWholeInbound: Bool { includedInboundPorts == nil && excludedInboundPorts.isEmpty }

    /// Whether a connection of the workload to this address is the mesh's.
    public func takesOutbound(to destination: SocketAddress) -> Bool {
        let isIn = { (blocks: [CIDR]) in blocks.contains { $0.contains(destination.ip) } }
        if excludedOutboundPorts.contains(destination.port) || isIn(excludedOutbound) { return false }
        return includedOutbound.map(isIn) ?? true || includedOutboundPorts.contains(destination.port)
    }

    /// Whether a connection from outside to this port of the workload is the mesh's. The proxy's own ports always are.
    public func takesInbound(port: UInt16) -> Bool {
        if ProxyPort.isRecursive(port) { return true }
        return includedInboundPorts?.contains(port) ?? !excludedInboundPorts.contains(port)
    }

    /// Every block of either list with the answer for addresses of which it is the longest block: true where they are
    /// the mesh's. What is excluded wins, however short its block.
    public var outboundBlocks: [CIDR: Bool] {
        var blocks: [CIDR: Bool] = [:]
        for block in includedOutbound ?? [] { blocks[block] = !excludedOutbound.contains { $0.covers(block) } }
        for block in excludedOutbound { blocks[block] = false }
        return blocks
    }
}

extension CaptureScope: CustomStringConvertible {
    /// What is captured, as a phrase: `outbound all but 10.0.0.0/8; inbound all but port 9090`.
    public var description: String { "outbound \(outbound); inbound \(inbound)" }

    private var outbound: String {
        let included = includedOutbound.map { Self.list($0, includedOutboundPorts) }
        let excluded = Self.list(excludedOutbound, excludedOutboundPorts)
        return Self.phrase(included, but: excluded)
    }

    private var inbound: String {
        let included = includedInboundPorts.map { Self.list([], $0) }
        return Self.phrase(included, but: Self.list([], includedInboundPorts == nil ? excludedInboundPorts : []))
    }

    private static func phrase(_ included: [String]?, but excluded: [String]) -> String {
        if included?.isEmpty == true { return "nothing" }
        let some = included.map { "only \($0.joined(separator: ", "))" } ?? "all"
        return some + (excluded.isEmpty ? "" : " but \(excluded.joined(separator: ", "))")
    }

    private static func list(_ blocks: [CIDR], _ ports: Set<UInt16>) -> [String] {
        blocks.map(\.description) + ports.sorted().map { "port \($0)" }
    }
}

extension CIDR {
    /// Holds every address of `other`.
    public func covers(_ other: CIDR) -> Bool { prefixLength <= other.prefixLength && contains(other.network) }
}
