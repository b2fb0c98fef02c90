public import MeshModel

/// Writes messages. Names are compressed against the question alone: every record a proxy makes belongs to it.
public struct DNSWriter {
    /// What has been written; the capacity is kept for the next message.
    public private(set) var bytes: [UInt8] = []

    /// The name of a record: the question's, or that of the CNAME written before.
    public enum Owner: Sendable { case question, alias }

    /// What EDNS tells of our own limits: no answer is larger than fits one Ethernet frame, so that none is fragmented.
    public static let payloadBytes: UInt16 = 1232

    private var answerCount: UInt16 = 0
    private var extendedCode: UInt8 = 0
    private var aliasOffset = 0

    public init() {}

    /// The client's question as we ask an upstream, with EDNS of our own where the client has it: OPT belongs to one
    /// hop (RFC 6891 §6.2.6). The id is zero until `setID`.
    /// - Parameters:
    ///   - message: a plain question.
    ///   - original: its bytes.
    public mutating func writeQuestion(of message: DNSMessage, _ original: UnsafeRawBufferPointer) {
        let kept = DNSHeader.recursionDesiredBit | DNSHeader.checkingDisabledBit
        start(flags: message.header.flags & kept, message, original)
        appendExtension(of: message)
    }

    /// Starts a response to a question: no records yet.
    public mutating func startResponse(
        to message: DNSMessage, _ original: UnsafeRawBufferPointer, _ code: DNSResponseCode, isAuthoritative: Bool
    ) {
        let kept = DNSHeader.opcodeMask | DNSHeader.recursionDesiredBit | DNSHeader.checkingDisabledBit
        var flags = DNSHeader.responseBit | DNSHeader.recursionAvailableBit | message.header.flags & kept
        flags |= code.rawValue & 0xf
        if isAuthoritative { flags |= DNSHeader.authoritativeBit }
        start(flags: flags, message, original)
        setHalf(at: 0, message.header.id)
        extendedCode = UInt8(truncatingIfNeeded: code.rawValue >> 4)
    }

    /// Adds an alias of the question's name; addresses may follow under `.alias`.
    public mutating func addAlias(_ target: DNSName, ttl: UInt32) {
        appendRecordStart(.question, .cname, ttl: ttl, dataBytes: target.bytes.count)
        aliasOffset = bytes.count
        bytes.append(contentsOf: target.bytes)
    }

    /// Adds an A or AAAA record.
    public mutating func addAddress(_ address: IPAddress, of owner: Owner, ttl: UInt32) {
        if address.isIPv4 {
            appendRecordStart(owner, .a, ttl: ttl, dataBytes: 4)
        } else {
            appendRecordStart(owner, .aaaa, ttl: ttl, dataBytes: 16)
            for shift in stride(from: 56, through: 0, by: -8) {
                bytes.append(UInt8(truncatingIfNeeded: address.high >> UInt64(shift)))
            }
        }
        for shift in stride(from: address.isIPv4 ? 24 : 56, through: 0, by: -8) {
            bytes.append(UInt8(truncatingIfNeeded: address.low >> UInt64(shift)))
        }
    }

    /// Ends a response that was started: with EDNS where the question had it, and without records but marked
    /// truncated where it would be larger than `limit`.
    public mutating func finishResponse(to message: DNSMessage, limit: Int) {
        let extensionBytes = message.edns == nil ? 0 : DNSExtension.recordBytes
        if bytes.count + extensionBytes > limit {
            bytes.removeLast(bytes.count - message.questionEnd)
            answerCount = 0
            bytes[2] |= UInt8(DNSHeader.truncatedBit >> 8)
        }
        setHalf(at: 6, answerCount)
        appendExtension(of: message)
    }

    /// A response that is nothing but a code, to a message that could not be parsed but has an id; nil when not even
    /// that, or when it is itself a response.
    public static func bareResponse(to original: UnsafeRawBufferPointer, _ code: DNSResponseCode) -> [UInt8]? {
        guard original.count >= DNSHeader.byteCount, original[2] & 0x80 == 0 else { return nil }
        var bytes = [UInt8](repeating: 0, count: DNSHeader.byteCount)
        bytes[0] = original[0]
        bytes[1] = original[1]
        bytes[2] = 0x80 | original[2] & 0x79
        bytes[3] = UInt8(truncatingIfNeeded: code.rawValue & 0xf)
        return bytes
    }

    private mutating func start(flags: UInt16, _ message: DNSMessage, _ original: UnsafeRawBufferPointer) {
        bytes.removeAll(keepingCapacity: true)
        bytes.append(contentsOf: original[..<message.questionEnd])
        answerCount = 0
        extendedCode = 0
        setHalf(at: 0, 0)
        setHalf(at: 2, flags)
        for offset in stride(from: 6, to: DNSHeader.byteCount, by: 2) { setHalf(at: offset, 0) }
    }

    private mutating func appendRecordStart(_ owner: Owner, _ type: DNSType, ttl: UInt32, dataBytes: Int) {
        answerCount += 1
        appendHalf(0xc000 | UInt16(owner == .question ? DNSHeader.byteCount : aliasOffset))
        appendHalf(type.rawValue)
        appendHalf(DNSQuestion.internet)
        appendHalf(UInt16(truncatingIfNeeded: ttl >> 16))
        appendHalf(UInt16(truncatingIfNeeded: ttl))
        appendHalf(UInt16(dataBytes))
    }

    private mutating func appendExtension(of message: DNSMessage) {
        guard let edns = message.edns else { return }
        bytes.appendExtension(code: extendedCode, wantsSecurity: edns.wantsSecurity)
        setHalf(at: 10, 1)
    }

    private mutating func appendHalf(_ value: UInt16) { bytes.appendHalf(value) }

    private mutating func setHalf(at offset: Int, _ value: UInt16) {
        bytes[offset] = UInt8(value >> 8)
        bytes[offset + 1] = UInt8(truncatingIfNeeded: value)
    }

    /// Gives the message an id.
    public mutating func setID(_ id: UInt16) { setHalf(at: 0, id) }
}

extension DNSExtension {
    /// An OPT record without options.
    static let recordBytes = 11
}

extension [UInt8] {
    /// Two bytes in network order.
    mutating func appendHalf(_ value: UInt16) {
        append(UInt8(value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }

    /// Our OPT record.
    mutating func appendExtension(code: UInt8, wantsSecurity: Bool) {
        append(0)
        appendHalf(DNSType.opt.rawValue)
        appendHalf(DNSWriter.payloadBytes)
        append(code)
        append(0)
        appendHalf(wantsSecurity ? 0x8000 : 0)
        appendHalf(0)
    }
}
