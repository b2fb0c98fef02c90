extension IPAddress: LosslessStringConvertible {
    /// Reads dotted-quad IPv4, or IPv6 in any form of RFC 4291 §2.2. Strict: no zone identifiers, no brackets,
    /// no leading zeros in IPv4 (some readers take them for octal), `::` for at least one group.
    public init?(_ text: String) {
        var copy = text
        let parsed = copy.withUTF8 { IPAddress.parse($0[...]) }
        guard let parsed else { return nil }
        self = parsed
    }

    /// Canonical text: dotted quad, or RFC 5952 §4 (lower case, the first longest run of two or more zero groups
    /// shortened).
    public var description: String {
        if isIPv4 { return "\(low >> 24 & 0xff).\(low >> 16 & 0xff).\(low >> 8 & 0xff).\(low & 0xff)" }
        let gap = longestZeroRun
        var text = ""
        var index = 0
        while index < 8 {
            if index == gap.lowerBound, !gap.isEmpty {
                text += "::"
                index = gap.upperBound
                continue
            }
            if !text.isEmpty, !text.hasSuffix(":") { text += ":" }
            text += String(group(index), radix: 16)
            index += 1
        }
        return text
    }

    /// One of the eight 16-bit groups of an IPv6 address, most significant first.
    private func group(_ index: Int) -> UInt64 {
        (index < 4 ? high : low) >> UInt64(48 - 16 * (index & 3)) & 0xffff
    }

    private var longestZeroRun: Range<Int> {
        var best = 0..<0
        var start = 0
        while start < 8 {
            var end = start
            while end < 8, group(end) == 0 { end += 1 }
            if end - start >= 2, end - start > best.count { best = start..<end }
            start = max(end, start + 1)
        }
        return best
    }
}

// MARK: - Parsing

extension IPAddress {
    typealias Bytes = Slice<UnsafeBufferPointer<UInt8>>

    static func parse(_ text: Bytes) -> IPAddress? {
        if text.contains(UInt8(ascii: ":")) { return parseIPv6(text) }
        return parseIPv4(text).map(IPAddress.init(v4:))
    }

    private static func parseIPv4(_ text: Bytes) -> UInt32? {
        var address: UInt32 = 0
        var octets = 0
        for piece in text.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            guard octets < 4, let octet = decimal(piece, maximum: 255) else { return nil }
            address = address << 8 | UInt32(octet)
            octets += 1
        }
        return octets == 4 ? address : nil
    }

    /// An unsigned decimal without sign and without leading zeros; nil when it is not one or exceeds `maximum`.
    static func decimal(_ digits: Bytes, maximum: Int) -> Int? {
        guard !digits.isEmpty, digits.count == 1 || digits.first != UInt8(ascii: "0") else { return nil }
        var value = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + Int(digit - UInt8(ascii: "0"))
            guard value <= maximum else { return nil }
        }
        return value
    }

    private static func parseIPv6(_ text: Bytes) -> IPAddress? {
        guard let gap = doubleColon(in: text) else {
            guard let all = groups(text, allowingIPv4: true), all.count == 8 else { return nil }
            return make(all.bits)
        }
        guard
            let head = groups(text[text.startIndex..<gap], allowingIPv4: false),
            let tail = groups(text[(gap + 2)...], allowingIPv4: true),
            head.count + tail.count < 8
        else { return nil }
        let shift = UInt64(16 * (8 - head.count))
        return make(
            (shifted(head.bits, left: shift).high | tail.bits.high, shifted(head.bits, left: shift).low | tail.bits.low)
        )
    }

    private typealias Bits = (high: UInt64, low: UInt64)

    private static func make(_ bits: Bits) -> IPAddress { IPAddress(high: bits.high, low: bits.low) }

    private static func shifted(_ bits: Bits, left count: UInt64) -> Bits {
        if count >= 128 { return (0, 0) }
        if count >= 64 { return (bits.low << (count - 64), 0) }
        if count == 0 { return bits }
        return (bits.high << count | bits.low >> (64 - count), bits.low << count)
    }

    private static func doubleColon(in text: Bytes) -> Int? {
        var index = text.startIndex
        while index + 1 < text.endIndex {
            if text[index] == UInt8(ascii: ":"), text[index + 1] == UInt8(ascii: ":") { return index }
            index += 1
        }
        return nil
    }

    /// Groups separated by single colons, the last of which may be an IPv4 address where allowed (RFC 4291 §2.2.3).
    private static func groups(_ text: Bytes, allowingIPv4: Bool) -> (bits: Bits, count: Int)? {
        var bits: Bits = (0, 0)
        var count = 0
        if text.isEmpty { return (bits, 0) }
        var rest = text
        while true {
            let end = rest.firstIndex(of: UInt8(ascii: ":"))
            let piece = rest[rest.startIndex..<(end ?? rest.endIndex)]
            if end == nil, allowingIPv4, piece.contains(UInt8(ascii: ".")) {
                guard let quad = parseIPv4(piece) else { return nil }
                bits = shifted(bits, left: 32)
                bits.low |= UInt64(quad)
                count += 2
            } else {
                guard let group = hexadecimal(piece) else { return nil }
                bits = shifted(bits, left: 16)
                bits.low |= group
                count += 1
            }
            guard count <= 8 else { return nil }
            guard let end else { return (bits, count) }
            rest = rest[(end + 1)...]
        }
    }

    private static func hexadecimal(_ digits: Bytes) -> UInt64? {
        guard (1...4).contains(digits.count) else { return nil }
        var value: UInt64 = 0
        for digit in digits {
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(digit - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
            case UInt8(ascii: "A")...UInt8(ascii: "F"): value = value << 4 | UInt64(digit - UInt8(ascii: "A") + 10)
            default: return nil
            }
        }
        return value
    }
}
