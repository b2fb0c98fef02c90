import CMeshSystem

/// An address and port as the kernel deals in them, in the canonical form of MeshModel's `IPAddress`:
/// IPv4-mapped IPv6 addresses (RFC 4291 §2.5.5.2) are IPv4. Scope ids are not carried.
public struct RawSocketAddress: Hashable, Sendable {
    /// The upper 64 bits of an IPv6 address, in host order; 0 for IPv4.
    public let high: UInt64
    /// The lower 64 bits of an IPv6 address, or the 32 bits of an IPv4 address, in host order.
    public let low: UInt64
    public let isIPv4: Bool
    public var port: UInt16

    public init(high: UInt64, low: UInt64, isIPv4: Bool, port: UInt16) {
        let isMapped = !isIPv4 && high == 0 && low >> 32 == 0xffff
        self.high = high
        self.low = isMapped ? low & 0xffff_ffff : low
        self.isIPv4 = isIPv4 || isMapped
        self.port = port
    }

    public static func v4(_ address: UInt32, port: UInt16) -> RawSocketAddress {
        RawSocketAddress(high: 0, low: UInt64(address), isIPv4: true, port: port)
    }

    public static func v6(high: UInt64, low: UInt64, port: UInt16) -> RawSocketAddress {
        RawSocketAddress(high: high, low: low, isIPv4: false, port: port)
    }
}

extension RawSocketAddress {
    init(_ address: mesh_address) {
        self.init(high: address.high, low: address.low, isIPv4: address.is_ipv4, port: address.port)
    }

    var native: mesh_address { mesh_address(high: high, low: low, port: port, is_ipv4: isIPv4) }

    /// `::`, whatever the port.
    var isUnspecifiedIPv6: Bool { !isIPv4 && high == 0 && low == 0 }

    /// Unspecified with port 0: what a socket without a name has.
    static var none: RawSocketAddress { .v6(high: 0, low: 0, port: 0) }
}
