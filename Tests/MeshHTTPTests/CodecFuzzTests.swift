import Testing

@testable import MeshHTTP

/// Random and mutated input never traps, and the outcome does not depend on how the bytes were split.
@Suite struct CodecFuzzTests {
    static let corpus: [[UInt8]] =
        (SmugglingTests.framing + SmugglingTests.lines + SmugglingTests.startLines).map { [UInt8]($0.text) } + [
            [UInt8]("GET /a?b HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\nX: y\r\n\r\n"),
            [UInt8]("POST http://[::1]:80/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"),
            [UInt8]("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            [UInt8]("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ]

    private func mutate(_ bytes: [UInt8], _ chance: inout Chance) -> [UInt8] {
        var bytes = bytes
        let special: [UInt8] = [0, 9, 10, 13, 32, 35, 44, 45, 48, 58, 59, 91, 93, 127, 128, 255]
        for _ in 0..<Int.random(in: 0...4, using: &chance) where !bytes.isEmpty {
            let index = Int.random(in: 0..<bytes.count, using: &chance)
            switch UInt8.random(in: 0..<5, using: &chance) {
            case 0: bytes.remove(at: index)
            case 1: bytes.insert(special.randomElement(using: &chance) ?? 0, at: index)
            case 2: bytes[index] = UInt8.random(in: .min ... .max, using: &chance)
            case 3: bytes.insert(contentsOf: bytes[index..<min(index + 12, bytes.count)], at: index)
            default: bytes.removeSubrange(index..<min(index + 8, bytes.count))
            }
        }
        return bytes
    }

    private func cuts(_ count: Int, _ chance: inout Chance) -> [Int] {
        guard count > 1 else { return [] }
        return (0..<3).map { _ in Int.random(in: 1..<count, using: &chance) }.sorted()
    }

    @Test(arguments: [UInt64(1), 2, 3])
    func mutatedHeads(seed: UInt64) {
        var chance = Chance(seed: seed)
        var limits = HTTPCodecLimits()
        limits.headBytes = 120
        limits.targetBytes = 30
        for round in 0..<4000 {
            let bytes = mutate(Self.corpus.randomElement(using: &chance) ?? [], &chance)
            let role: HTTPHeadParser.Role = Bool.random(using: &chance) ? .request : .response
            let small = Bool.random(using: &chance) ? limits : HTTPCodecLimits()
            let whole = parse(bytes, role, limits: small)
            let split = parse(bytes, role, cuts: cuts(bytes.count, &chance), limits: small)
            if whole != split { Issue.record("seed \(seed) round \(round): \(bytes.text.debugDescription)") }
        }
    }

    @Test func everySplitOfEveryVectorGivesTheSame() {
        for bytes in Self.corpus {
            for role in [HTTPHeadParser.Role.request, .response] {
                let whole = parse(bytes, role)
                for cut in 1..<bytes.count where parse(bytes, role, cuts: [cut]) != whole {
                    Issue.record("cut \(cut): \(bytes.text.debugDescription)")
                }
            }
        }
    }

    @Test(arguments: [UInt64(4), 5])
    func mutatedBodies(seed: UInt64) {
        var chance = Chance(seed: seed)
        let good = [UInt8]("4\r\nwiki\r\n0a;x=y\r\n0123456789\r\n0\r\nt: u\r\nhost: v\r\n\r\nrest")
        for round in 0..<4000 {
            let bytes = mutate(good, &chance)
            let keepsFraming = Bool.random(using: &chance)
            let whole = decode(bytes, .chunked, keepsFraming: keepsFraming)
            let split = decode(
                bytes, .chunked, cuts: cuts(bytes.count, &chance), keepsFraming: keepsFraming,
                drainsEarly: Bool.random(using: &chance))
            if whole.status != split.status || whole.output != split.output {
                Issue.record("seed \(seed) round \(round): \(bytes.text.debugDescription)")
            }
            // What comes out is canonical: decoding it again changes nothing.
            if whole.status == .complete, keepsFraming {
                let again = decode(whole.output, .chunked)
                #expect(again.status == .complete && again.output == whole.output && again.content == whole.content)
            }
        }
    }

    @Test func randomBytesNeverTrap() {
        var chance = Chance(seed: 6)
        for _ in 0..<2000 {
            let count = Int.random(in: 0..<200, using: &chance)
            let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &chance) }
            _ = parse(bytes, .request)
            _ = parse(bytes, .response)
            _ = decode(bytes, .chunked)
        }
    }
}
