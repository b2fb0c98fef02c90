import MeshModel
import MeshRuntime
import Testing

@testable import MeshProxy
@testable import MeshWire

/// Upstreams that lose, delay, garble, cut, refuse and fail at random. Whatever they do: every client gets one answer
/// in time, under its own id, for its own question, with data that a server has given for it, and nothing is left.
@Suite struct DNSSimulationTests {
    @Test(arguments: (1...40).map { UInt64($0) })
    func everyQuestionHasOneAnswer(seed: UInt64) throws {
        let world = try DNSWorld(seed: seed) {
            $0.dnsCacheEntries = 6
            $0.dnsQuestionsInFlight = 8
        }
        var random = CoreRandom(seed: seed)
        let faults = Int.random(in: 0...100, using: &random)
        world.upstreams.reply = { query in
            let good = PlayedUpstreams.answer(
                query, mark: Self.mark(query), ttl: UInt32.random(in: 0...4, using: &random),
                count: Int.random(in: 1...40, using: &random))
            let delay = Int.random(in: 1...2500, using: &random)
            guard Int.random(in: 0..<100, using: &random) < faults else { return .message(good, after: delay % 50 + 1) }
            switch Int.random(in: 0..<8, using: &random) {
            case 0: return .nothing
            case 1: return .refused
            case 2: return .message(good, after: delay)
            case 3: return .message(PlayedUpstreams.answer(query, count: 0, code: .serverFailure), after: delay)
            case 4: return .message(PlayedUpstreams.denial(query, ttl: 3), after: delay)
            case 5:
                var cut = PlayedUpstreams.answer(query, count: 0)
                cut[2] |= 2
                return .message(cut, after: delay)
            case 6:
                var other = good
                other[Int.random(in: 0..<2, using: &random)] ^= 0x55
                return .several([other, Array(good.prefix(delay % good.count)), good])
            default:
                var garbled = good
                // Ids and questions protect themselves; the records' bytes are the server's to get right.
                for _ in 0..<3 { garbled[Int.random(in: 0..<12, using: &random)] ^= UInt8(1 << (delay % 8)) }
                return .message(garbled, after: delay)
            }
        }
        var askers: [(asker: PlayedAsker, name: String, id: UInt16)] = []
        for _ in 0..<300 {
            let name = "name\(Int.random(in: 0..<12, using: &random)).example"
            let id = UInt16.random(in: .min ... .max, using: &random)
            let asker = world.ask(
                name, id: id, of: DNSWorld.server(UInt32.random(in: 1...2, using: &random)),
                isStream: Bool.random(using: &random))
            askers.append((asker, name, id))
            world.advance(Int.random(in: 0...400, using: &random))
        }
        world.advance(5000)
        for (asker, name, id) in askers {
            #expect(asker.answers.count == 1, "seed \(seed) \(name)")
            let message = try #require(asker.message, "seed \(seed) \(name)")
            #expect(message.header.id == id && message.header.isResponse, "seed \(seed) \(name)")
            #expect(message.question.name == DNSName(name), "seed \(seed) \(name)")
            if let mark = asker.mark {
                #expect(mark == Self.mark(name, asker.server), "seed \(seed) \(name): another question's answer")
                #expect(asker.records.allSatisfy { $0.ttl <= 4 || $0.ttl == 30 }, "seed \(seed) \(name)")
            }
        }
        #expect(world.service.inFlight == 0 && world.core.nextDeadline == nil, "seed \(seed)")
        #expect(world.service.cachedAnswers <= 6, "seed \(seed)")
    }

    private static func mark(_ query: PlayedUpstreams.Query) -> UInt8 {
        mark(query.message?.question.name.text ?? "", query.server)
    }

    /// Tells apart what each server says of each name.
    private static func mark(_ name: String, _ server: SocketAddress?) -> UInt8 {
        let number = name.utf8.reduce(0) { $0 &* 31 &+ Int($1) } &+ Int(server?.ip.low ?? 0) &* 7
        return UInt8(truncatingIfNeeded: number) | 1
    }
}
