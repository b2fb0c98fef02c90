extension SocketAddress: LosslessStringConvertible {
    /// Reads `192.0.2.1:80` or `[2001:db8::1]:80` (RFC 3986 §3.2.2, RFC 5952 §6). An IPv6 address needs its brackets,
    /// an IPv4 address must not have any; the port is decimal without leading zeros.
    public init?(_ text: String) {
        var copy = text
        let parsed = copy.withUTF8 { SocketAddress.parse($0[...]) }
        guard let parsed else { return nil }
        self = parsed
    }

    /// Reads the same forms from bytes, as they stand in a CONNECT authority.
    public init?(utf8 bytes: UnsafeBufferPointer<UInt8>) {
        guard let parsed = SocketAddress.parse(bytes[...]) else { return nil }
        self = parsed
    }

    public var description: String { ip.isIPv4 ? "\(ip):\(port)" : "[\(ip)]:\(port)" }

    private static func parse(_ text: IPAddress.Bytes) -> SocketAddress? {
        guard
            let colon = text.lastIndex(of: UInt8(ascii: ":")),
            let port = IPAddress.decimal(text[(colon + 1)...], maximum: 65535)
        else { return nil }
        var host = text[text.startIndex..<colon]
        let bracketed = host.first == UInt8(ascii: "[") && host.last == UInt8(ascii: "]")
        if bracketed { host = host.dropFirst().dropLast() }
        guard bracketed == host.contains(UInt8(ascii: ":")), let ip = IPAddress.parse(host) else { return nil }
        return SocketAddress(ip: ip, port: UInt16(port))
    }
}

extension CIDR: LosslessStringConvertible {
    /// Reads `10.0.0.0/8` or `2001:db8::/32`; a bare address covers itself only.
    public init?(_ text: String) {
        guard let slash = text.utf8.firstIndex(of: UInt8(ascii: "/")) else {
            guard let address = IPAddress(text) else { return nil }
            self.init(address, prefixLength: address.bitWidth)
            return
        }
        guard let address = IPAddress(String(text[..<slash])) else { return nil }
        var digits = String(text[text.index(after: slash)...])
        guard let length = digits.withUTF8({ IPAddress.decimal($0[...], maximum: address.bitWidth) }) else {
            return nil
        }
        self.init(address, prefixLength: length)
    }

    public var description: String { "\(network)/\(prefixLength)" }
}
