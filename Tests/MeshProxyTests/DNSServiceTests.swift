import MeshModel
import MeshRuntime
import Testing

@testable import MeshProxy
@testable import MeshWire

@Suite struct DNSServiceTests {
    private typealias Upstreams = PlayedUpstreams

    @Test func namesOfTheMeshNeedNoUpstream() throws {
        let world = try DNSWorld()
        for name in ["web", "WEB.default", "web.default.svc.cluster.local"] {
            let asker = world.ask(name, id: 77)
            #expect(asker.code == .noError && asker.message?.header.id == 77)
            #expect(asker.records.map(\.data) == [[10, 96, 0, 1]] && asker.ttl == 30)
        }
        let six = [0xfd, 0x96] + [UInt8](repeating: 0, count: 13) + [1]
        #expect(world.ask("web", type: .aaaa).records.map(\.data) == [six])
        let absent = world.ask("four", type: .aaaa)
        #expect(absent.code == .noError && absent.records.isEmpty, "no such record, but such a name")
        let alias = world.ask("ledger.example.com.default.svc.cluster.local")
        #expect(alias.records.map(\.type) == [.cname, .a])
        #expect(alias.records.first?.data == DNSName("ledger.example.com")?.bytes)
        #expect(world.ask("x.invalid").code == .nameError)
        #expect(world.upstreams.queries.isEmpty)
    }

    @Test func whatIsNoOrdinaryQuestion() throws {
        let world = try DNSWorld()
        #expect(world.ask("example.com", type: .axfr, isStream: true).code == .notImplemented)
        func ask(_ bytes: [UInt8]) -> (Bool, PlayedAsker) {
            let asker = PlayedAsker(server: DNSWorld.server(1), isStream: false)
            return (bytes.withUnsafeBytes { world.service.ask($0, asker) }, asker)
        }
        let question = DNSWorld.question("example.com")
        let (_, garbage) = ask(Array(question.dropLast()))
        #expect(garbage.answers == [[0x11, 0x11, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
        var response = question
        response[2] |= 0x80
        #expect(!ask(response).0 && !ask([1, 2, 3]).0, "what answers answers breeds loops")
        var versioned = DNSWorld.question("example.com", payload: 1232)
        versioned[versioned.count - 5] = 1
        let (_, asker) = ask(versioned)
        #expect(asker.code == .badVersion)
        #expect(world.upstreams.queries.isEmpty)

        // An update goes on as it is, under an id of ours, and comes back under its own.
        world.upstreams.reply = { query in
            var header = Array(query.bytes[..<12])
            header[2] |= 0x80
            header[5] = 0
            return .message(header, after: 1)
        }
        var update = question
        update[2] = 0x28
        let (_, updater) = ask(update)
        world.advance(20)
        #expect(world.upstreams.queries.map { Array($0.bytes.dropFirst(2)) } == [Array(update.dropFirst(2))])
        #expect(updater.answers.map { Array($0.prefix(6)) } == [[0x11, 0x11, 0xa8, 0, 0, 0]])
    }

    @Test func answersAreKeptAsLongAsTheirTTLs() throws {
        let world = try DNSWorld()
        var mark: UInt8 = 1
        world.upstreams.reply = { .message(Upstreams.answer($0, mark: mark, ttl: 10), after: 5) }
        let first = world.ask("Example.com", id: 1)
        world.advance(10)
        #expect(first.mark == 1 && first.ttl == 10)
        mark = 2
        world.advance(3000)
        let second = world.ask("eXample.com", id: 2)
        #expect(second.mark == 1 && second.ttl == 7, "from the cache, three seconds older")
        #expect(second.message?.header.id == 2)
        #expect(second.answers.first.map { Array($0[12..<20]) } == [7] + Array("eXample".utf8), "spelt as asked")
        world.advance(6000)
        #expect(world.ask("example.com").ttl == 1)
        world.advance(1000)
        let renewed = world.ask("example.com")
        #expect(renewed.answers.isEmpty)
        world.advance(10)
        #expect(renewed.mark == 2 && world.upstreams.queries.count == 2)
        // Another server, EDNS or another type is another question.
        for asker in [
            world.ask("example.com", of: DNSWorld.server(2)), world.ask("example.com", payload: 1232),
            world.ask("example.com", type: .aaaa),
        ] {
            #expect(asker.answers.isEmpty)
        }
        #expect(world.upstreams.queries.count == 5)
        #expect(world.upstreams.queries[2].server == DNSWorld.server(2))
        #expect(world.upstreams.queries[3].message?.edns?.payloadBytes == DNSWriter.payloadBytes)
    }

    @Test func denialsAreKeptToo() throws {
        let world = try DNSWorld()
        world.upstreams.reply = { .message(Upstreams.denial($0, ttl: 5), after: 1) }
        let first = world.ask("nosuch.example")
        world.advance(10)
        #expect(first.code == .nameError)
        #expect(world.ask("nosuch.example").code == .nameError)
        #expect(world.upstreams.queries.count == 1)
        // The mesh knows this name; others do not know the record. It exists all the same.
        let text = world.ask("web", type: DNSType(rawValue: 16))
        world.advance(10)
        #expect(text.code == .noError && text.records.map(\.type) == [.soa])
        #expect(world.ask("web").code == .noError)
        // Without a TTL nothing is kept.
        world.upstreams.reply = { .message(Upstreams.answer($0, ttl: 0), after: 1) }
        for _ in 0..<2 {
            let asker = world.ask("brief.example")
            world.advance(10)
            #expect(asker.ttl == 0)
        }
        #expect(world.upstreams.queries.count == 4)
    }

    @Test func equalQuestionsAreAskedOnce() throws {
        let world = try DNSWorld { $0.dnsWaitersPerQuestion = 8 }
        world.upstreams.reply = { .message(Upstreams.answer($0), after: 100) }
        let askers = (0..<10).map { world.ask("example.com", id: $0) }
        #expect(askers.map { $0.code == .serverFailure } == (0..<10).map { $0 >= 8 }, "the last two found no room")
        world.advance(150)
        for (id, asker) in askers.prefix(8).enumerated() {
            #expect(asker.mark == 1 && asker.message?.header.id == UInt16(id))
        }
        #expect(askers.allSatisfy { $0.answers.count == 1 } && world.upstreams.queries.count == 1)
    }

    @Test func questionsInFlightAreBounded() throws {
        let world = try DNSWorld { $0.dnsQuestionsInFlight = 4 }
        let askers = (0..<5).map { world.ask("name\($0).example") }
        #expect(world.service.inFlight == 4)
        #expect(askers.map { $0.code == .serverFailure } == [false, false, false, false, true])
        world.advance(5000)
        #expect(askers.allSatisfy { $0.code == .serverFailure && $0.answers.count == 1 })
        #expect(world.service.inFlight == 0)
        let text = world.metricsText()
        #expect(text.contains("istio_dns_upstream_failures_total{source_canonical_service=\"client\""))
        #expect(text.contains("source=\"failure\"} 5\n"))
        #expect(text.contains("istio_dns_upstream_request_duration_seconds_bucket{"))
        #expect(text.contains("request_query_type=\"A\",request_protocol=\"udp\""))
    }

    @Test func lostQuestionsAreAskedAgainAndOfOthers() throws {
        let world = try DNSWorld()
        world.setDefaultServers([DNSWorld.server(1), DNSWorld.server(2)])
        world.upstreams.reply = { query in
            query.server == DNSWorld.server(2) ? .message(Upstreams.answer(query, mark: 2), after: 1) : .nothing
        }
        let asker = world.ask("example.com", of: nil)
        world.advance(4100)
        #expect(asker.mark == 2)
        #expect(world.upstreams.queries.map(\.server) == [1, 1, 2].map(DNSWorld.server))
        #expect(Set(world.upstreams.queries.compactMap { $0.message?.header.id }).count == 3, "a new id each time")
        // Refusals and failures need no waiting.
        for (name, reply) in [("refused", nil), ("failing", DNSResponseCode.serverFailure), ("unwilling", .refused)] {
            world.upstreams.reply = { query in
                if query.server == DNSWorld.server(2) { return .message(Upstreams.answer(query, mark: 3), after: 1) }
                return reply.map { .message(Upstreams.answer(query, count: 0, code: $0), after: 1) } ?? .refused
            }
            let asker = world.ask("\(name).example", of: nil)
            world.advance(100)
            #expect(asker.mark == 3, "\(name)")
        }
        // The server that the application meant is the only one asked, and its refusal is the answer.
        world.upstreams.reply = { .message(Upstreams.answer($0, count: 0, code: .refused), after: 1) }
        let refused = world.ask("own.example", of: DNSWorld.server(1))
        world.advance(100)
        #expect(refused.code == .refused)
    }

    @Test func staleAnswersServeWhileUpstreamsAreDown() throws {
        let world = try DNSWorld()
        world.upstreams.reply = { .message(Upstreams.answer($0, ttl: 10), after: 1) }
        world.ask("example.com")
        world.advance(11_000)
        world.upstreams.reply = { _ in .nothing }
        let waited = world.ask("example.com")
        world.advance(1700)
        #expect(waited.answers.isEmpty)
        world.advance(200)
        #expect(waited.mark == 1 && waited.ttl == 30, "stale, after 1.8 seconds")
        // The lookup goes on for those who come meanwhile, and at its end upstreams are left in peace.
        let meanwhile = world.ask("example.com")
        world.advance(3000)
        #expect(meanwhile.mark == 1 && meanwhile.ttl == 30)
        let asked = world.upstreams.queries.count
        for _ in 0..<10 { #expect(world.ask("example.com").mark == 1) }
        #expect(world.upstreams.queries.count == asked, "nobody is asked for thirty seconds")
        world.advance(31_000)
        world.upstreams.reply = { .message(Upstreams.answer($0, mark: 9, ttl: 10), after: 1) }
        let fresh = world.ask("example.com")
        world.advance(10)
        #expect(fresh.mark == 9 && fresh.ttl == 10)
        // What fails at once is answered at once; what was never known is not made up.
        world.advance(11_000)
        world.upstreams.reply = { .message(Upstreams.answer($0, count: 0, code: .serverFailure), after: 1) }
        let failed = world.ask("example.com")
        let unknown = world.ask("other.example")
        world.advance(50)
        #expect(failed.mark == 9 && failed.ttl == 30 && unknown.code == .serverFailure)
    }

    @Test func staleAnswersEndAfterTheirDay() throws {
        let world = try DNSWorld { $0.dnsStaleSeconds = 100 }
        world.upstreams.reply = { .message(Upstreams.answer($0, ttl: 10), after: 1) }
        world.ask("example.com")
        world.advance(111_000)
        world.upstreams.reply = { _ in .refused }
        let late = world.ask("example.com")
        world.advance(100)
        #expect(late.code == .serverFailure)
        #expect(world.service.cachedAnswers == 0)
    }

    @Test func foreignAnswersAreIgnored() throws {
        let world = try DNSWorld()
        world.upstreams.reply = { query in
            let good = Upstreams.answer(query, mark: 1)
            var wrongID = Upstreams.answer(query, mark: 66)
            wrongID[0] ^= 1
            var noResponse = Upstreams.answer(query, mark: 66)
            noResponse[2] &= 0x7f
            var wrongName = Upstreams.answer(query, mark: 66)
            wrongName[13] ^= 1
            return .several([wrongID, noResponse, wrongName, [], [1, 2, 3], Array(good.dropLast()), good])
        }
        let asker = world.ask("example.com")
        world.advance(20)
        #expect(asker.mark == 1 && asker.answers.count == 1)
        // Whoever goes on guessing is left behind: TCP.
        world.upstreams.reply = { query in
            if query.overTCP { return .message(Upstreams.answer(query, mark: 2), after: 1) }
            return .several([[UInt8]](repeating: [0, 0, 0x80], count: 8))
        }
        let chased = world.ask("chased.example")
        world.advance(30)
        #expect(chased.mark == 2 && world.upstreams.queries.last?.overTCP == true)
    }

    @Test func truncatedAnswersAreFetchedByTCP() throws {
        let world = try DNSWorld()
        world.upstreams.reply = { .message(Upstreams.answer($0, count: 100), after: 1) }
        let small = world.ask("many.example")
        let large = world.ask("many.example", isStream: true)
        world.advance(30)
        #expect(world.upstreams.queries.map(\.overTCP) == [false, true])
        #expect(small.message?.header.isTruncated == true && small.records.isEmpty)
        #expect(large.message?.header.isTruncated == false && large.records.count == 100)
        #expect(world.ask("many.example", isStream: true).records.count == 100, "kept as a whole")
        #expect(world.ask("many.example").message?.header.isTruncated == true)
    }

    @Test func theCacheIsBounded() throws {
        let world = try DNSWorld {
            $0.dnsCacheEntries = 10
            $0.dnsCacheBytes = 8 * 1024
        }
        world.upstreams.reply = { .message(Upstreams.answer($0, count: $0.overTCP ? 100 : 1), after: 1) }
        for index in 0..<20 {
            world.ask("name\(index).example")
            world.advance(10)
            world.ask("name0.example")
            #expect(world.service.cachedAnswers <= 10)
        }
        let asked = world.upstreams.queries.count
        #expect(world.ask("name0.example").mark == 1, "used all the time")
        #expect(world.upstreams.queries.count == asked)
        world.ask("name1.example")
        #expect(world.upstreams.queries.count == asked + 1, "long unused")
    }
}
