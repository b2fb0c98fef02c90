extension DNSMessage {
    /// How many seconds this response may be kept, nil for not at all. `bytes` is what was parsed.
    ///
    /// The least TTL of all its records. A response that says "no such name" or "no such record" is kept only with the
    /// SOA of its zone, and at most for the zone's negative TTL (RFC 2308 §5); without one it may be a referral
    /// (§2.2). A truncated response is none, and failures (SERVFAIL, REFUSED, …) are not kept.
    public func lifetime(in bytes: UnsafeRawBufferPointer) -> UInt32? {
        guard header.isResponse, !header.isTruncated, isResolved else { return nil }
        var least = UInt32.max
        var isAnswered = false
        var negative: UInt32?
        forEachRecord(in: bytes) { record in
            guard record.type != .opt else { return }
            least = min(least, record.ttl(in: bytes))
            switch record.section {
            case .answer:
                if record.type == question.type || question.type == .any { isAnswered = true }
            case .authority:
                // MNAME and RNAME of one byte each at least, then five numbers; the last is MINIMUM.
                if record.type == .soa, record.data.count >= 22 {
                    negative = bytes.word(at: record.data.upperBound - 4)
                }
            case .additional: break
            }
        }
        if responseCode == .noError && isAnswered { return least }
        return negative.map { min(least, $0 > 0x7fff_ffff ? 0 : $0) }
    }

    /// Whether it is not a failure of the server (RFC 8767 §4).
    public var isResolved: Bool { responseCode == .noError || responseCode == .nameError }
}
