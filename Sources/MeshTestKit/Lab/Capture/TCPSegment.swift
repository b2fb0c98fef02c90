import MeshModel

/// One TCP segment of a captured Ethernet frame. The payload is a range of the frame, not a copy.
struct TCPSegment {
    let source: SocketAddress
    let destination: SocketAddress
    let sequence: UInt32
    let isSYN: Bool
    let isACK: Bool
    let isFIN: Bool
    let isRST: Bool
    let payload: Range<Int>

    /// What a frame is to us.
    enum Frame {
        case tcp(TCPSegment)
        /// Address resolution, neighbour discovery, ICMP: what a network needs, no payload of applications.
        case housekeeping
        /// UDP, fragments, anything else that could carry an application's bytes.
        case other(protocolNumber: UInt8)
        case malformed
    }

    /// Reads an Ethernet II frame with IPv4 (RFC 791) or IPv6 (RFC 8200) and TCP (RFC 9293 §3.1).
    static func parse(_ frame: UnsafeRawBufferPointer) -> Frame {
        guard frame.count >= 14 else { return .malformed }
        var type = frame.u16(12)
        var offset = 14
        // 802.1Q tags that the kernel left in place.
        while type == 0x8100 || type == 0x88a8, frame.count >= offset + 4 {
            type = frame.u16(offset + 2)
            offset += 4
        }
        switch type {
        case 0x0800: return parseV4(frame, at: offset)
        case 0x86dd: return parseV6(frame, at: offset)
        case 0x0806: return .housekeeping
        default: return .other(protocolNumber: 255)
        }
    }

    private static func parseV4(_ frame: UnsafeRawBufferPointer, at offset: Int) -> Frame {
        guard frame.count >= offset + 20, frame[offset] >> 4 == 4 else { return .malformed }
        let header = Int(frame[offset] & 0xf) * 4
        let total = Int(frame.u16(offset + 2))
        let end = offset + total
        guard header >= 20, total >= header, frame.count >= end else { return .malformed }
        let number = frame[offset + 9]
        // An offset or "more fragments": the pieces cannot be judged one by one.
        if frame.u16(offset + 6) & 0x3fff != 0 { return .other(protocolNumber: number) }
        return parseTransport(
            number, frame, offset + header..<end, source: IPAddress(v4: frame.u32(offset + 12)),
            destination: IPAddress(v4: frame.u32(offset + 16)))
    }

    private static func parseV6(_ frame: UnsafeRawBufferPointer, at offset: Int) -> Frame {
        guard frame.count >= offset + 40, frame[offset] >> 4 == 6 else { return .malformed }
        let end = offset + 40 + Int(frame.u16(offset + 4))
        guard frame.count >= end else { return .malformed }
        var number = frame[offset + 6]
        var next = offset + 40
        // Hop-by-hop, routing and destination options have their length in units of eight octets, less one.
        while [0, 43, 60].contains(number), next + 8 <= end {
            let length = (Int(frame[next + 1]) + 1) * 8
            number = frame[next]
            next += length
        }
        guard next <= end else { return .malformed }
        return parseTransport(
            number, frame, next..<end, source: IPAddress(high: frame.u64(offset + 8), low: frame.u64(offset + 16)),
            destination: IPAddress(high: frame.u64(offset + 24), low: frame.u64(offset + 32)))
    }

    private static func parseTransport(
        _ number: UInt8, _ frame: UnsafeRawBufferPointer, _ range: Range<Int>, source: IPAddress, destination: IPAddress
    ) -> Frame {
        // ICMP, IGMP and ICMPv6 have no ports and no streams.
        if [1, 2, 58].contains(number) { return .housekeeping }
        guard number == 6 else { return .other(protocolNumber: number) }
        let offset = range.lowerBound
        guard range.count >= 20 else { return .malformed }
        let header = Int(frame[offset + 12] >> 4) * 4
        guard header >= 20, range.count >= header else { return .malformed }
        let flags = frame[offset + 13]
        return .tcp(
            TCPSegment(
                source: SocketAddress(ip: source, port: frame.u16(offset)),
                destination: SocketAddress(ip: destination, port: frame.u16(offset + 2)),
                sequence: frame.u32(offset + 4), isSYN: flags & 2 != 0, isACK: flags & 16 != 0, isFIN: flags & 1 != 0,
                isRST: flags & 4 != 0, payload: offset + header..<range.upperBound))
    }
}

extension UnsafeRawBufferPointer {
    /// Big-endian integers; the caller has checked the bounds.
    func u16(_ offset: Int) -> UInt16 { UInt16(self[offset]) << 8 | UInt16(self[offset + 1]) }
    func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) << 16 | UInt32(u16(offset + 2)) }
    func u64(_ offset: Int) -> UInt64 { UInt64(u32(offset)) << 32 | UInt64(u32(offset + 4)) }
}
