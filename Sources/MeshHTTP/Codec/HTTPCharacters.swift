/// The character classes of RFC 9110 and RFC 3986 as bit sets, and comparisons on byte ranges.
enum HTTPCharacters {
    static let space: UInt8 = 0x20
    static let tab: UInt8 = 0x09
    static let carriageReturn: UInt8 = 0x0d
    static let lineFeed: UInt8 = 0x0a

    /// `tchar` (RFC 9110 §5.6.2).
    static func isToken(_ byte: UInt8) -> Bool {
        isMember(byte, low: 0x03ff_6cfa_0000_0000, high: 0x57ff_ffff_c7ff_fffe)
    }

    /// What a request target may hold: visible ASCII without the fragment mark. Wider than RFC 3986, since clients send
    /// `|` or `"` unescaped, but no byte here can end a line, a word or a header.
    static func isTarget(_ byte: UInt8) -> Bool { byte > 0x20 && byte < 0x7f && byte != UInt8(ascii: "#") }

    /// `reg-name` (RFC 3986 §3.2.2), which also covers IPv4 literals.
    static func isRegisteredName(_ byte: UInt8) -> Bool {
        isMember(byte, low: 0x2bff_7ff2_0000_0000, high: 0x47ff_fffe_87ff_fffe)
    }

    /// `field-content` (RFC 9110 §5.5): visible characters, SP, HTAB and obs-text; no other control.
    static func isFieldContent(_ byte: UInt8) -> Bool { byte >= 0x20 ? byte != 0x7f : byte == tab }

    static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
    static func isBlank(_ byte: UInt8) -> Bool { byte == space || byte == tab }

    /// 0…15, or nil where the byte is no hexadecimal digit.
    static func hexValue(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }

    static func lowercased(_ byte: UInt8) -> UInt8 { byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte }

    private static func isMember(_ byte: UInt8, low: UInt64, high: UInt64) -> Bool {
        if byte < 64 { return low >> UInt64(byte) & 1 == 1 }
        return byte < 128 && high >> UInt64(byte - 64) & 1 == 1
    }
}

/// A range of bytes of a head, relative to the head's first byte; heads are bounded far below 4 GiB.
struct HTTPSlice: Equatable {
    var start: UInt32
    var end: UInt32

    static let empty = HTTPSlice(0, 0)

    init(_ start: Int, _ end: Int) {
        self.start = UInt32(start)
        self.end = UInt32(end)
    }

    var range: Range<Int> { Int(start)..<Int(end) }
    var count: Int { Int(end) - Int(start) }
    var isEmpty: Bool { start == end }
}

extension HTTPSlice {
    /// Whether the bytes are `text`, which is given in lower case, without regard to case.
    func matches(_ text: StaticString, in bytes: Span<UInt8>) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for offset in 0..<count
        where HTTPCharacters.lowercased(bytes[Int(start) + offset]) != text.utf8Start[offset] {
            return false
        }
        return true
    }

    /// Whether two ranges of the same bytes are equal without regard to case.
    func matches(_ other: HTTPSlice, in bytes: Span<UInt8>) -> Bool {
        guard count == other.count else { return false }
        for offset in 0..<count
        where HTTPCharacters.lowercased(bytes[Int(start) + offset])
            != HTTPCharacters.lowercased(bytes[Int(other.start) + offset])
        {
            return false
        }
        return true
    }

    /// The range without blanks (SP, HTAB) at both ends.
    func trimmed(in bytes: Span<UInt8>) -> HTTPSlice {
        var first = Int(start)
        var last = Int(end)
        while first < last, HTTPCharacters.isBlank(bytes[first]) { first += 1 }
        while last > first, HTTPCharacters.isBlank(bytes[last - 1]) { last -= 1 }
        return HTTPSlice(first, last)
    }

    /// A copy as text. Bytes above 0x7f that are no UTF-8 are repaired, so this is for names, logs and matching only,
    /// never for forwarding.
    func text(in bytes: Span<UInt8>) -> String {
        copied(in: bytes, lowercase: false)
    }

    func lowercasedText(in bytes: Span<UInt8>) -> String { copied(in: bytes, lowercase: true) }

    private func copied(in bytes: Span<UInt8>, lowercase: Bool) -> String {
        String(unsafeUninitializedCapacity: count) { target in
            for offset in 0..<count {
                let byte = bytes[Int(start) + offset]
                target[offset] = lowercase ? HTTPCharacters.lowercased(byte) : byte
            }
            return count
        }
    }
}
