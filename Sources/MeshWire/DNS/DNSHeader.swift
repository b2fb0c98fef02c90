/// The type of a record or question (RFC 1035 §3.2.2 and the IANA registry).
public struct DNSType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let a = DNSType(rawValue: 1)
    public static let cname = DNSType(rawValue: 5)
    public static let soa = DNSType(rawValue: 6)
    public static let aaaa = DNSType(rawValue: 28)
    /// The pseudo record of EDNS (RFC 6891).
    public static let opt = DNSType(rawValue: 41)
    public static let ixfr = DNSType(rawValue: 251)
    public static let axfr = DNSType(rawValue: 252)
    public static let any = DNSType(rawValue: 255)

    /// The registry's name of the types that are worth a metric label of their own; `other` for the rest.
    public var label: String {
        switch rawValue {
        case 1: "A"
        case 2: "NS"
        case 5: "CNAME"
        case 6: "SOA"
        case 12: "PTR"
        case 15: "MX"
        case 16: "TXT"
        case 28: "AAAA"
        case 33: "SRV"
        case 64: "SVCB"
        case 65: "HTTPS"
        case 255: "ANY"
        default: "other"
        }
    }
}

/// RCODE (RFC 1035 §4.1.1, and RFC 6891 §6.1.3 for those past 15).
public struct DNSResponseCode: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt16

    public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let noError = DNSResponseCode(rawValue: 0)
    public static let formatError = DNSResponseCode(rawValue: 1)
    public static let serverFailure = DNSResponseCode(rawValue: 2)
    public static let nameError = DNSResponseCode(rawValue: 3)
    public static let notImplemented = DNSResponseCode(rawValue: 4)
    public static let refused = DNSResponseCode(rawValue: 5)
    /// An EDNS version that is not 0.
    public static let badVersion = DNSResponseCode(rawValue: 16)
}

/// The fixed start of every message (RFC 1035 §4.1.1).
public struct DNSHeader: Hashable, Sendable {
    public static let byteCount = 12

    public var id: UInt16
    /// QR, opcode, AA, TC, RD, RA, Z, AD, CD, RCODE: as on the wire.
    public var flags: UInt16

    public init(id: UInt16, flags: UInt16) {
        self.id = id
        self.flags = flags
    }

    /// The start of a message; nil when there is not even that much.
    public init?(_ message: UnsafeRawBufferPointer) {
        guard message.count >= Self.byteCount else { return nil }
        self.init(id: message.half(at: 0), flags: message.half(at: 2))
    }

    static let responseBit: UInt16 = 0x8000
    static let authoritativeBit: UInt16 = 0x0400
    static let truncatedBit: UInt16 = 0x0200
    static let recursionDesiredBit: UInt16 = 0x0100
    static let recursionAvailableBit: UInt16 = 0x0080
    static let checkingDisabledBit: UInt16 = 0x0010
    static let opcodeMask: UInt16 = 0x7800

    public var isResponse: Bool { flags & Self.responseBit != 0 }
    public var opcode: UInt8 { UInt8(flags >> 11 & 0xf) }
    public var isTruncated: Bool { flags & Self.truncatedBit != 0 }
    public var recursionDesired: Bool { flags & Self.recursionDesiredBit != 0 }
    public var checkingDisabled: Bool { flags & Self.checkingDisabledBit != 0 }
}

/// What is asked. Two spellings of one question are equal.
public struct DNSQuestion: Hashable, Sendable {
    public var name: DNSName
    public var type: DNSType
    /// CLASS; 1 is the Internet.
    public var recordClass: UInt16

    public static let internet: UInt16 = 1

    public init(name: DNSName, type: DNSType, recordClass: UInt16 = DNSQuestion.internet) {
        self.name = name
        self.type = type
        self.recordClass = recordClass
    }
}

/// EDNS as a message carries it: its OPT record (RFC 6891 §6.1).
public struct DNSExtension: Hashable, Sendable {
    /// The largest UDP message that the sender takes.
    public var payloadBytes: UInt16
    /// The upper eight bits of the response code.
    public var extendedCode: UInt8
    public var version: UInt8
    /// DO: the sender wants DNSSEC records (RFC 3225).
    public var wantsSecurity: Bool

    public init(payloadBytes: UInt16, extendedCode: UInt8 = 0, version: UInt8 = 0, wantsSecurity: Bool = false) {
        self.payloadBytes = payloadBytes
        self.extendedCode = extendedCode
        self.version = version
        self.wantsSecurity = wantsSecurity
    }
}

/// Why bytes are no DNS message.
public enum DNSParseError: Error, Hashable, Sendable {
    /// The message ends inside of something, or its counts promise more records than it holds.
    case truncated
    /// Bytes after the last record.
    case trailingBytes
    /// A label of a kind that nobody uses (RFC 6891 §5).
    case badLabel
    /// A compression pointer that does not lead backwards.
    case badPointer
    /// A name of more than 255 bytes.
    case nameTooLong
    /// Not exactly one question (RFC 9619).
    case questionCount
    /// Two OPT records, or one in the wrong section or with a name (RFC 6891 §6.1.1).
    case badExtension
}
