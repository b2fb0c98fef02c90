import MeshModel
import Testing

@testable import MeshWire

/// Random bytes and mutated messages never trap, and what is made of a hostile response is itself a message.
@Suite struct DNSFuzzTests {
    static let corpus: [[UInt8]] = [
        DNSBytes.message(name: "a"), DNSBytes.message(name: "www.example.org", type: .aaaa),
        DNSBytes.message(name: "a", additional: [DNSBytes.opt(1232, ttl: 0x8000, data: [0, 10, 0, 2, 1, 2])]),
        DNSBytes.message(
            flags: 0x8180, name: "www.example.org",
            answers: [
                DNSBytes.Record(type: .cname, ttl: 20, data: DNSBytes.name("x.example.org")),
                DNSBytes.address(1, ttl: 60), DNSBytes.address(2, ttl: 0xffff_ffff),
            ], authority: [DNSBytes.soa(ttl: 300, minimum: 60)],
            additional: [DNSBytes.address(3, ttl: 1), DNSBytes.opt(4096)]),
        DNSBytes.message(flags: 0x8183, name: "none", authority: [DNSBytes.soa(ttl: 300, minimum: 60)]),
    ]

    /// Inputs that once did harm, or were made to.
    static let crashers: [[UInt8]] = [
        [], [0], [UInt8](repeating: 0, count: 12), [UInt8](repeating: 0xff, count: 512),
        // The second record's name points into the first one's TTL, which an answer overwrites.
        DNSBytes.message(
            flags: 0x8180, name: "a",
            answers: [
                DNSBytes.Record(type: .a, ttl: 0x0161_0000, data: [1, 2, 3, 4]),
                DNSBytes.Record(name: [0xc0, 25], type: .a, ttl: 3, data: [1, 2, 3, 4]),
            ]),
        // 65535 records promised.
        DNSBytes.message(flags: 0x8180, name: "a").enumerated().map { (6..<12).contains($0.offset) ? 255 : $0.element },
    ]

    private func mutate(_ bytes: [UInt8], _ random: inout TestRandom) -> [UInt8] {
        var bytes = bytes
        for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
            let index = Int.random(in: 0..<bytes.count, using: &random)
            switch UInt8.random(in: 0..<6, using: &random) {
            case 0: bytes.remove(at: index)
            case 1: bytes.insert(UInt8.random(in: .min ... .max, using: &random), at: index)
            case 2: bytes[index] = UInt8.random(in: .min ... .max, using: &random)
            case 3: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 4 where index + 1 < bytes.count:
                // A pointer to somewhere near.
                bytes[index] = 0xc0
                bytes[index + 1] = UInt8.random(in: 0..<80, using: &random)
            default: bytes.removeLast(bytes.count - index)
            }
        }
        return bytes
    }

    /// Everything the proxy does with what it receives.
    private func exercise(_ bytes: [UInt8]) -> Bool {
        _ = bytes.withUnsafeBytes { DNSWriter.bareResponse(to: $0, .formatError) }
        guard let message = try? parseDNS(bytes) else { return false }
        #expect(message.question.name.bytes.count <= DNSName.maximumBytes)
        if let text = message.question.name.text { #expect(DNSName(text) == message.question.name) }
        var writer = DNSWriter()
        bytes.withUnsafeBytes { raw in
            writer.startResponse(to: message, raw, .serverFailure, isAuthoritative: false)
            writer.finishResponse(to: message, limit: message.answerLimit)
        }
        #expect((try? parseDNS(writer.bytes))?.question == message.question)

        guard let stored = try? storeDNS(bytes) else { return false }
        _ = stored.lifetime
        let asked = bytes.withUnsafeBytes { raw in
            writer.writeQuestion(of: message, raw)
            return writer.bytes
        }
        for age in [DNSStoredResponse.Age.seconds(0), .seconds(10), .stale(ttl: 30)] {
            for limit in [512, 65535] {
                guard let answer = try? stored.answer(asked, age: age, limit: limit, nameExists: true) else {
                    Issue.record("no answer: \(bytes)")
                    continue
                }
                #expect(answer.count <= max(limit, 512))
                // Whether the records still parse is the sender's affair; the question is ours.
                if answer.count == message.questionEnd {
                    #expect((try? parseDNS(answer))?.question == message.question)
                }
            }
        }
        return true
    }

    @Test(arguments: [UInt64(1), 2, 3])
    func mutatedMessages(seed: UInt64) {
        var random = TestRandom(seed: seed)
        var accepted = 0
        for _ in 0..<20_000 {
            let bytes = mutate(Self.corpus.randomElement(using: &random) ?? [], &random)
            if exercise(bytes) { accepted += 1 }
        }
        // Were nothing accepted, only the first check would have been tested.
        #expect(accepted > 1000, "seed \(seed)")
    }

    @Test(arguments: [UInt64(4), 5])
    func randomBytes(seed: UInt64) {
        var random = TestRandom(seed: seed)
        for _ in 0..<20_000 {
            var bytes = (0..<Int.random(in: 0..<80, using: &random)).map { _ in
                UInt8.random(in: .min ... .max, using: &random)
            }
            if bytes.count > 12, Bool.random(using: &random) {
                bytes.replaceSubrange(4..<12, with: [0, 1, 0, 1, 0, 0, 0, 0])
            }
            _ = exercise(bytes)
        }
    }

    @Test func pastCrashers() {
        for bytes in Self.crashers + Self.corpus { _ = exercise(bytes) }
    }
}
