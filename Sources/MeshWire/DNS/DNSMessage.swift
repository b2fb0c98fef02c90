/// A message whose every name and record has been found to lie within it. It holds no bytes: what reads records gets
/// the same bytes again.
///
/// The parser is bounded by the message: a record takes at least eleven bytes, names are walked with the bound of
/// `DNSName.skip`, and counts that promise more than there is are an error.
public struct DNSMessage: Sendable {
    public enum Section: Sendable { case answer, authority, additional }

    /// One record of a message.
    public struct Record: Sendable {
        public let section: Section
        public let type: DNSType
        public let recordClass: UInt16
        /// Where the TTL stands in the message, in seconds, four bytes.
        public let ttlOffset: Int
        public let data: Range<Int>

        /// Seconds; a value with the top bit set counts as zero (RFC 2181 §8).
        public func ttl(in message: UnsafeRawBufferPointer) -> UInt32 {
            let value = message.word(at: ttlOffset)
            return value > 0x7fff_ffff ? 0 : value
        }
    }

    public var header: DNSHeader
    public let question: DNSQuestion
    /// After the question: where records start.
    public let questionEnd: Int
    public let answerCount: Int
    public let authorityCount: Int
    public let additionalCount: Int
    public private(set) var edns: DNSExtension?

    public init(parsing bytes: UnsafeRawBufferPointer) throws(DNSParseError) {
        guard let header = DNSHeader(bytes) else { throw .truncated }
        self.header = header
        guard bytes.half(at: 4) == 1 else { throw .questionCount }
        answerCount = Int(bytes.half(at: 6))
        authorityCount = Int(bytes.half(at: 8))
        additionalCount = Int(bytes.half(at: 10))
        let (name, end) = try DNSName.read(bytes, at: DNSHeader.byteCount)
        guard end + 4 <= bytes.count else { throw .truncated }
        question = DNSQuestion(
            name: name, type: DNSType(rawValue: bytes.half(at: end)), recordClass: bytes.half(at: end + 2))
        questionEnd = end + 4

        var position = questionEnd
        for index in 0..<recordCount {
            let start = position
            let record = try Self.record(bytes, at: &position, section(of: index))
            guard record.type == .opt else { continue }
            guard record.section == .additional, edns == nil, bytes[start] == 0 else { throw .badExtension }
            edns = DNSExtension(
                payloadBytes: record.recordClass, extendedCode: bytes[record.ttlOffset],
                version: bytes[record.ttlOffset + 1], wantsSecurity: bytes[record.ttlOffset + 2] & 0x80 != 0)
        }
        if position != bytes.count { throw .trailingBytes }
    }

    /// A question for the Internet class that nothing but EDNS accompanies: one that has the same answer whoever asks.
    public var isPlainQuestion: Bool {
        !header.isResponse && header.opcode == 0 && question.recordClass == DNSQuestion.internet && answerCount == 0
            && authorityCount == 0 && additionalCount == (edns == nil ? 0 : 1)
    }

    /// The largest UDP answer that the sender of this question takes: 512 without EDNS (RFC 6891 §6.2.3), and never
    /// more than the 4096 that its §6.2.5 calls a good compromise.
    public var answerLimit: Int { min(4096, max(512, Int(edns?.payloadBytes ?? 512))) }

    /// The whole code: that of the header and its upper bits in EDNS (RFC 6891 §6.1.3).
    public var responseCode: DNSResponseCode {
        DNSResponseCode(rawValue: UInt16(edns?.extendedCode ?? 0) << 4 | header.flags & 0xf)
    }

    /// Visits every record in order. `bytes` is what was parsed.
    public func forEachRecord(in bytes: UnsafeRawBufferPointer, _ body: (Record) -> Void) {
        var position = questionEnd
        for index in 0..<recordCount {
            guard let record = try? Self.record(bytes, at: &position, section(of: index)) else {
                preconditionFailure("not the bytes that were parsed")
            }
            body(record)
        }
    }

    private var recordCount: Int { answerCount + authorityCount + additionalCount }

    private func section(of index: Int) -> Section {
        index < answerCount ? .answer : index < answerCount + authorityCount ? .authority : .additional
    }

    private static func record(
        _ bytes: UnsafeRawBufferPointer, at position: inout Int, _ section: Section
    ) throws(DNSParseError) -> Record {
        let fixed = try DNSName.skip(bytes, at: position)
        guard fixed + 10 <= bytes.count else { throw .truncated }
        let end = fixed + 10 + Int(bytes.half(at: fixed + 8))
        guard end <= bytes.count else { throw .truncated }
        position = end
        return Record(
            section: section, type: DNSType(rawValue: bytes.half(at: fixed)), recordClass: bytes.half(at: fixed + 2),
            ttlOffset: fixed + 4, data: fixed + 10..<end)
    }
}

extension UnsafeRawBufferPointer {
    /// Two bytes in network order.
    func half(at offset: Int) -> UInt16 { UInt16(self[offset]) << 8 | UInt16(self[offset + 1]) }

    /// Four bytes in network order.
    func word(at offset: Int) -> UInt32 { UInt32(half(at: offset)) << 16 | UInt32(half(at: offset + 2)) }
}
