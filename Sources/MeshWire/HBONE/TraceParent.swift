/// The `traceparent` header (W3C Trace Context §3.2). Serves to find the log lines of one connection on both nodes.
public struct TraceParent: Hashable, Sendable, CustomStringConvertible {
    public let traceHigh: UInt64
    public let traceLow: UInt64
    public let span: UInt64

    /// A new trace from the caller's source of chance.
    public init(using chance: inout some RandomNumberGenerator) {
        traceHigh = chance.next()
        // Identifiers of zeros only are invalid (§3.2.2.3, §3.2.2.4).
        traceLow = chance.next() | 1
        span = chance.next() | 1
    }

    /// Reads the 55 characters of version 00 (or of a later version in the same form); nil for anything else.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard bytes.count == 55, bytes[2] == dash, bytes[35] == dash, bytes[52] == dash,
            let version = Self.hexadecimal(bytes[0..<2]), version != 0xff,
            let high = Self.hexadecimal(bytes[3..<19]), let low = Self.hexadecimal(bytes[19..<35]),
            let span = Self.hexadecimal(bytes[36..<52]), Self.hexadecimal(bytes[53..<55]) != nil,
            high | low != 0, span != 0
        else { return nil }
        traceHigh = high
        traceLow = low
        self.span = span
    }

    /// Always version 00 and not sampled: no spans are recorded.
    public var description: String { "00-\(Self.text(traceHigh))\(Self.text(traceLow))-\(Self.text(span))-00" }

    private static func text(_ value: UInt64) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Lower case only (§3.2.2).
    private static func hexadecimal(_ digits: ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for digit in digits {
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = value << 4 | UInt64(digit - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = value << 4 | UInt64(digit - UInt8(ascii: "a") + 10)
            default: return nil
            }
        }
        return value
    }
}

private let dash = UInt8(ascii: "-")
