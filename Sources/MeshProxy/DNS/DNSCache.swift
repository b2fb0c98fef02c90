internal import MeshModel
internal import MeshWire

/// Which answers are interchangeable: the question, what its bits ask for, and whom it was meant for. An application
/// that asks two servers may get two answers.
struct DNSQuestionKey: Hashable {
    let question: DNSQuestion
    let server: SocketAddress?
    let hasExtension: Bool
    let wantsSecurity: Bool
    let recursionDesired: Bool
    let checkingDisabled: Bool

    init(_ message: DNSMessage, server: SocketAddress?) {
        question = message.question
        self.server = server
        hasExtension = message.edns != nil
        wantsSecurity = message.edns?.wantsSecurity ?? false
        recursionDesired = message.header.recursionDesired
        checkingDisabled = message.header.checkingDisabled
    }
}

/// Answers of upstreams, bounded in number and bytes; what was used longest ago goes first.
///
/// An answer is kept past its time too, to be served stale (RFC 8767) while no upstream answers. Negative answers are:
/// a resolver's search list runs into several of them on the way to the name it looks for, and would stop there.
struct DNSCache {
    struct Found {
        let response: DNSStoredResponse
        /// Whole seconds since it came.
        let age: UInt32
        let isFresh: Bool
        /// Upstreams failed for it a short while ago.
        let isResting: Bool
    }

    private struct Entry {
        let key: DNSQuestionKey
        let response: DNSStoredResponse
        let storedAt: UInt64
        let lifetime: UInt32
        var restsUntil: UInt64 = 0
        /// Places in the order of use; -1 for none.
        var newer: Int
        var older: Int

        var bytes: Int { response.bytes.count + 2 * key.question.name.bytes.count + DNSCache.entryOverhead }
    }

    /// Roughly what an entry takes beside its bytes.
    private static let entryOverhead = 256

    private var places: [DNSQuestionKey: Int] = [:]
    private var entries: [Entry?] = []
    private var free: [Int] = []
    private var newest = -1
    private var oldest = -1
    private(set) var bytes = 0
    var count: Int { places.count }

    /// What is kept for the question, as long as it may be served at all.
    mutating func find(_ key: DNSQuestionKey, now: UInt64, limits: Limits) -> Found? {
        guard let place = places[key], let entry = entries[place] else { return nil }
        let age = (now - entry.storedAt) / 1_000_000_000
        guard age < UInt64(entry.lifetime) + UInt64(limits.dnsStaleSeconds) else {
            remove(place)
            return nil
        }
        touch(place)
        return Found(
            response: entry.response, age: UInt32(age), isFresh: age < UInt64(entry.lifetime),
            isResting: now < entry.restsUntil)
    }

    /// Keeps an answer as long as its TTLs say, if they say anything.
    mutating func store(_ response: DNSStoredResponse, for key: DNSQuestionKey, now: UInt64, limits: Limits) {
        guard var lifetime = response.lifetime else { return }
        let isNegative = response.message.responseCode == .nameError || response.message.answerCount == 0
        lifetime = min(lifetime, isNegative ? limits.dnsMaximumNegativeTTL : limits.dnsMaximumTTL)
        if let place = places[key] { remove(place) }
        guard lifetime > 0 else { return }
        let entry = Entry(
            key: key, response: response, storedAt: now, lifetime: lifetime, newer: -1, older: -1)
        guard entry.bytes <= limits.dnsCacheBytes else { return }
        bytes += entry.bytes
        let place: Int
        if let unused = free.popLast() {
            place = unused
            entries[place] = entry
        } else {
            place = entries.count
            entries.append(entry)
        }
        places[key] = place
        putNewest(place)
        while bytes > limits.dnsCacheBytes || places.count > limits.dnsCacheEntries { remove(oldest) }
    }

    /// Upstreams failed for the question: they are left in peace until `until`.
    mutating func rest(_ key: DNSQuestionKey, until: UInt64) {
        guard let place = places[key] else { return }
        entries[place]?.restsUntil = until
    }

    private mutating func remove(_ place: Int) {
        guard let entry = entries[place] else { return }
        unlink(place)
        bytes -= entry.bytes
        places[entry.key] = nil
        entries[place] = nil
        free.append(place)
    }

    private mutating func touch(_ place: Int) {
        guard newest != place else { return }
        unlink(place)
        putNewest(place)
    }

    private mutating func putNewest(_ place: Int) {
        entries[place]?.newer = -1
        entries[place]?.older = newest
        if newest >= 0 { entries[newest]?.newer = place }
        newest = place
        if oldest < 0 { oldest = place }
    }

    private mutating func unlink(_ place: Int) {
        guard let entry = entries[place] else { return }
        if entry.newer >= 0 { entries[entry.newer]?.older = entry.older } else { newest = entry.older }
        if entry.older >= 0 { entries[entry.older]?.newer = entry.newer } else { oldest = entry.newer }
    }
}
