/// A response of an upstream, kept as it came, that answers any number of questions equal to the one it was sent for.
///
/// Only bytes in place are changed for a client: its id, its spelling of the name (the same length, so every pointer
/// stays true), the TTLs, the size in OPT, the code. So the records of every type pass through, known to us or not.
public struct DNSStoredResponse: Sendable {
    public let message: DNSMessage
    public let bytes: [UInt8]

    /// How the TTLs of the copy are made.
    public enum Age: Hashable, Sendable {
        /// As old as this many seconds: what is left is told, and at least zero.
        case seconds(UInt32)
        /// Kept past its time because there is nothing better: the TTL of every record (RFC 8767 §5).
        case stale(ttl: UInt32)
    }

    /// Parses and copies.
    public init(_ bytes: UnsafeRawBufferPointer) throws(DNSParseError) {
        message = try DNSMessage(parsing: bytes)
        self.bytes = [UInt8](bytes)
    }

    /// How many seconds it may be kept; nil for not at all.
    public var lifetime: UInt32? { bytes.withUnsafeBytes { message.lifetime(in: $0) } }

    /// Whether this is what a server says to the question that `sent` holds: a response, the id, the same question.
    public func answers(_ sent: DNSMessage) -> Bool {
        message.header.isResponse && message.header.id == sent.header.id
            && message.header.opcode == sent.header.opcode && message.question == sent.question
    }

    /// Puts the answer for a client into `output`.
    /// - Parameters:
    ///   - question: the client's message and its bytes: equal in question and in having EDNS.
    ///   - limit: the largest message the client takes; past it the answer is empty and marked truncated.
    ///   - nameExists: the name is known to exist, whatever the upstream says of it: "no such name" becomes "no such
    ///     record", as a client may take the first one for the end of every question about the name (RFC 8020).
    public func answer(
        _ question: DNSMessage, _ original: UnsafeRawBufferPointer, age: Age, limit: Int, nameExists: Bool,
        into output: inout [UInt8]
    ) {
        output.removeAll(keepingCapacity: true)
        let isTooLarge = bytes.count > limit
        output.append(contentsOf: isTooLarge ? bytes[..<message.questionEnd] : bytes[...])
        output.withUnsafeMutableBytes { copy in
            copy.copyBytes(from: original[..<question.questionEnd], at: DNSHeader.byteCount)
            copy[0] = original[0]
            copy[1] = original[1]
            // RD and CD are echoed (RFC 1035 §4.1.1); RA is true of us.
            copy[2] = copy[2] & 0xfe | original[2] & 0x01
            copy[3] = copy[3] & 0xef | original[3] & 0x10 | 0x80
            if nameExists && message.responseCode == .nameError { copy[3] &= 0xf0 }
            // Not the zone's own word any more (RFC 8767 §4 leaves it open; a cached answer is never authoritative).
            if age != .seconds(0) { copy[2] &= ~UInt8(DNSHeader.authoritativeBit >> 8) }
            if isTooLarge {
                copy[2] |= UInt8(DNSHeader.truncatedBit >> 8)
                for offset in 6..<DNSHeader.byteCount { copy[offset] = 0 }
            } else {
                setTTLs(age, in: copy)
            }
        }
        if isTooLarge, let edns = question.edns {
            output.appendExtension(code: 0, wantsSecurity: edns.wantsSecurity)
            output[11] = 1
        }
    }

    /// Records are looked up in what was stored, not in the copy: a hostile name may point into a TTL.
    private func setTTLs(_ age: Age, in copy: UnsafeMutableRawBufferPointer) {
        bytes.withUnsafeBytes { stored in
            message.forEachRecord(in: stored) { record in
                if record.type == .opt {
                    // Two bytes before the TTL: the size that the sender takes, and the sender is us.
                    copy.setHalf(at: record.ttlOffset - 2, DNSWriter.payloadBytes)
                    return
                }
                switch age {
                case .seconds(let seconds):
                    let ttl = record.ttl(in: stored)
                    copy.setWord(at: record.ttlOffset, ttl > seconds ? ttl - seconds : 0)
                case .stale(let ttl): copy.setWord(at: record.ttlOffset, ttl)
                }
            }
        }
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func copyBytes(from source: Slice<UnsafeRawBufferPointer>, at start: Int) {
        for offset in start..<source.endIndex { self[offset] = source[offset] }
    }

    fileprivate func setHalf(at offset: Int, _ value: UInt16) {
        self[offset] = UInt8(value >> 8)
        self[offset + 1] = UInt8(truncatingIfNeeded: value)
    }

    fileprivate func setWord(at offset: Int, _ value: UInt32) {
        setHalf(at: offset, UInt16(value >> 16))
        setHalf(at: offset + 2, UInt16(truncatingIfNeeded: value))
    }
}
