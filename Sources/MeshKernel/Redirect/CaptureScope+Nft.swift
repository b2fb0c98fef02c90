internal import CMeshABI
internal import MeshModel

/// What is kept out of the mesh as statements of nft(8), each of which ends with `verdict`.
extension CaptureScope {
    func outboundExclusions(_ verdict: String) -> String {
        if isWholeOutbound { return "" }
        var lines: [String] = []
        if !excludedOutboundPorts.isEmpty { lines.append("tcp dport \(Self.set(excludedOutboundPorts)) \(verdict)") }
        for isIPv4 in [true, false] {
            if let match = Self.match(excludedOutbound, isIPv4: isIPv4) { lines.append("\(match) \(verdict)") }
        }
        if let includedOutbound {
            let ports = includedOutboundPorts.isEmpty ? "" : "tcp dport != \(Self.set(includedOutboundPorts)) "
            for isIPv4 in [true, false] {
                switch Self.match(includedOutbound, isIPv4: isIPv4, negated: true) {
                // Nothing is left out of a family of which everything is included.
                case nil where includedOutbound.contains { $0.network.isIPv4 == isIPv4 }: break
                case nil: lines.append("\(ports)\(Self.family(isIPv4)) \(verdict)")
                case let match?: lines.append("\(ports)\(match) \(verdict)")
                }
            }
        }
        return Self.text(lines)
    }

    func inboundExclusions(_ verdict: String) -> String {
        let own = Set([UInt16(CULVERT_PORT_OUTBOUND), UInt16(CULVERT_PORT_INBOUND)])
        if let includedInboundPorts {
            return Self.text(["tcp dport != \(Self.set(includedInboundPorts.union(own))) \(verdict)"])
        }
        let ports = excludedInboundPorts.subtracting(own)
        return ports.isEmpty ? "" : Self.text(["tcp dport \(Self.set(ports)) \(verdict)"])
    }

    private static func text(_ lines: [String]) -> String {
        lines.map { "        \($0)" }.joined(separator: "\n")
    }

    private static func set(_ ports: Set<UInt16>) -> String {
        "{ \(ports.sorted().map(String.init).joined(separator: ", ")) }"
    }

    private static func family(_ isIPv4: Bool) -> String { "meta nfproto \(isIPv4 ? "ipv4" : "ipv6")" }

    /// What matches the addresses of the blocks of one family, or all others of the family; nil: none can.
    private static func match(_ blocks: [CIDR], isIPv4: Bool, negated: Bool = false) -> String? {
        let ours = Set(blocks.filter { $0.network.isIPv4 == isIPv4 })
        if ours.isEmpty { return nil }
        if ours.contains(where: { $0.prefixLength == 0 }) { return negated ? nil : family(isIPv4) }
        // A set of intervals has no room for one inside another.
        let widest = ours.filter { block in !ours.contains { $0 != block && $0.covers(block) } }
        let elements = widest.map(\.description).sorted().joined(separator: ", ")
        return "\(isIPv4 ? "ip" : "ip6") daddr \(negated ? "!= " : ""){ \(elements) }"
    }
}
