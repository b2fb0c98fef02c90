/// A domain name as DNS carries it, uncompressed and in lower case: labels with their lengths, ended by a zero
/// (RFC 1035 §3.1). Two spellings of one name are equal, as names are compared without regard to case (RFC 4343).
public struct DNSName: Hashable, Sendable {
    /// The longest name, with its lengths and the final zero (RFC 1035 §2.3.4).
    public static let maximumBytes = 255
    public static let maximumLabelBytes = 63

    /// At least the final zero.
    public let bytes: [UInt8]

    /// Reads dotted text, with or without the final dot; nil when it is no name.
    public init?(_ text: String) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count + 2)
        if text != "." {
            var labels = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)[...]
            if labels.count > 1, labels.last?.isEmpty ?? false { labels.removeLast() }
            for label in labels {
                guard (1...Self.maximumLabelBytes).contains(label.count) else { return nil }
                bytes.append(UInt8(label.count))
                for byte in label { bytes.append(Self.lowered(byte)) }
            }
        }
        bytes.append(0)
        guard bytes.count <= Self.maximumBytes else { return nil }
        self.bytes = bytes
    }

    fileprivate init(wire bytes: [UInt8]) { self.bytes = bytes }

    /// Dotted text without the final dot (`.` for the root); nil when a label holds what host names and service names (RFC 2782, with
    /// underscores) do not.
    public var text: String? {
        if bytes == [0] { return "." }
        var text: [UInt8] = []
        text.reserveCapacity(bytes.count)
        var position = 0
        while bytes[position] != 0 {
            if position > 0 { text.append(UInt8(ascii: ".")) }
            let end = position + 1 + Int(bytes[position])
            for byte in bytes[position + 1..<end] {
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"),
                    UInt8(ascii: "_"):
                    text.append(byte)
                default: return nil
                }
            }
            position = end
        }
        return String(decoding: text, as: UTF8.self)
    }

    fileprivate static func lowered(_ byte: UInt8) -> UInt8 {
        byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z") ? byte | 0x20 : byte
    }
}

extension DNSName {
    /// Walks over the name at `start` of a message; gives the offset after it.
    ///
    /// A pointer must lead to before the part that holds it (RFC 1035 §4.1.4: "a prior occurrence"), so that every jump
    /// gets closer to the start and no loop can be written.
    static func skip(_ message: UnsafeRawBufferPointer, at start: Int) throws(DNSParseError) -> Int {
        try walk(message, at: start) { _ in }
    }

    /// Reads the name at `start` of a message, decompressed; gives the offset after it too.
    static func read(_ message: UnsafeRawBufferPointer, at start: Int) throws(DNSParseError) -> (DNSName, end: Int) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(64)
        let end = try walk(message, at: start) { part in
            // Lengths are below the letters, so the whole part can be lowered at once.
            for byte in part { bytes.append(lowered(byte)) }
        }
        bytes.append(0)
        return (DNSName(wire: bytes), end)
    }

    private static func walk(
        _ message: UnsafeRawBufferPointer, at start: Int, _ body: (Slice<UnsafeRawBufferPointer>) -> Void
    ) throws(DNSParseError) -> Int {
        var position = start
        var partStart = start
        var end: Int?
        var length = 1
        while true {
            guard position < message.count else { throw .truncated }
            let byte = message[position]
            switch byte & 0xc0 {
            case 0x00:
                if byte == 0 { return end ?? position + 1 }
                let next = position + 1 + Int(byte)
                guard next <= message.count else { throw .truncated }
                length += next - position
                guard length <= maximumBytes else { throw .nameTooLong }
                body(message[position..<next])
                position = next
            case 0xc0:
                guard position + 1 < message.count else { throw .truncated }
                let target = Int(byte & 0x3f) << 8 | Int(message[position + 1])
                guard target >= DNSHeader.byteCount, target < partStart else { throw .badPointer }
                if end == nil { end = position + 2 }
                position = target
                partStart = target
            default: throw .badLabel
            }
        }
    }
}
