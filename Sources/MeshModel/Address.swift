/// An IPv4 or IPv6 address as a value. IPv4-mapped IPv6 addresses (RFC 4291 §2.5.5.2) become IPv4 when made,
/// so two spellings of one host are equal.
public struct IPAddress: Hashable, Sendable, Comparable {
    /// The upper 64 bits of an IPv6 address, in host order; 0 for IPv4.
    public let high: UInt64
    /// The lower 64 bits of an IPv6 address, or the 32 bits of an IPv4 address, in host order.
    public let low: UInt64
    public let isIPv4: Bool

    public init(v4: UInt32) {
        high = 0
        low = UInt64(v4)
        isIPv4 = true
    }

    public init(high: UInt64, low: UInt64) {
        let isMapped = high == 0 && low >> 32 == 0xffff
        self.high = high
        self.low = isMapped ? low & 0xffff_ffff : low
        isIPv4 = isMapped
    }

    /// Width in bits: 32 or 128.
    public var bitWidth: Int { isIPv4 ? 32 : 128 }
    public var isLoopback: Bool { isIPv4 ? low >> 24 == 127 : high == 0 && low == 1 }
    public var isUnspecified: Bool { high == 0 && low == 0 }
    public var isMulticast: Bool { isIPv4 ? low >> 28 == 0xe : high >> 56 == 0xff }
    public var isLinkLocal: Bool { isIPv4 ? low >> 16 == 0xa9fe : high >> 54 == 0x3fa }

    public static func < (left: IPAddress, right: IPAddress) -> Bool {
        if left.isIPv4 != right.isIPv4 { return left.isIPv4 }
        return left.high == right.high ? left.low < right.low : left.high < right.high
    }
}

/// An address and a port: `192.0.2.1:80` or `[2001:db8::1]:80`.
public struct SocketAddress: Hashable, Sendable {
    public var ip: IPAddress
    public var port: UInt16

    public init(ip: IPAddress, port: UInt16) {
        self.ip = ip
        self.port = port
    }
}

/// A prefix of addresses in CIDR notation (RFC 4632). Host bits given in the text are cleared.
public struct CIDR: Hashable, Sendable {
    public let network: IPAddress
    /// 0…32 for IPv4, 0…128 for IPv6.
    public let prefixLength: Int

    public init?(_ address: IPAddress, prefixLength: Int) {
        guard prefixLength >= 0, prefixLength <= address.bitWidth else { return nil }
        self.network = address.masked(to: prefixLength)
        self.prefixLength = prefixLength
    }

    public func contains(_ address: IPAddress) -> Bool {
        address.isIPv4 == network.isIPv4 && address.masked(to: prefixLength) == network
    }
}

extension IPAddress {
    /// The address with every bit after the first `length` cleared.
    func masked(to length: Int) -> IPAddress {
        func keep(_ bits: UInt64, _ count: Int, of width: Int) -> UInt64 {
            if count <= 0 { return 0 }
            if count >= width { return bits }
            return bits & (~0 << UInt64(width - count))
        }
        if isIPv4 { return IPAddress(v4: UInt32(truncatingIfNeeded: keep(low, length, of: 32) & 0xffff_ffff)) }
        return IPAddress(high: keep(high, length, of: 64), low: keep(low, length - 64, of: 64))
    }
}
