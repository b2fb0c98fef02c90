import MeshModel
import Testing

@testable import MeshWire

@Suite struct DNSMessageTests {
    @Test func namesCompareWithoutCaseAndKeepTheirLimits() throws {
        #expect(DNSName("Shop.Default.svc.") == DNSName("shop.default.SVC"))
        #expect(DNSName("shop.default")?.text == "shop.default")
        #expect(DNSName(".")?.bytes == [0])
        #expect(DNSName(".")?.text == ".")
        #expect(DNSName("_http._tcp.a")?.text == "_http._tcp.a")
        let label = String(repeating: "a", count: 63)
        #expect(DNSName(label) != nil)
        #expect(DNSName(label + "a") == nil)
        #expect(DNSName("a..b") == nil)
        #expect(DNSName("") == nil)
        // 63 × 3 and 61, their four lengths and the zero: 255.
        let longest = "\(label).\(label).\(label).\(label.dropLast(2))"
        #expect(DNSName(longest)?.bytes.count == 255)
        #expect(DNSName(longest + "a") == nil)
        // What no host has in its name is no text, so it cannot be mistaken for a name with dots.
        let dotted = DNSBytes.message(name: "x").replacing([1, UInt8(ascii: "x")], with: [3, 97, 46, 98])
        #expect(try parseDNS(dotted).question.name.text == nil)
    }

    @Test func aQuestionIsRead() throws {
        let bytes = DNSBytes.message(
            id: 7, name: "Web.Example", type: .aaaa, additional: [DNSBytes.opt(1400, ttl: 0x8000)])
        let message = try parseDNS(bytes)
        #expect(message.header.id == 7 && !message.header.isResponse && message.header.recursionDesired)
        #expect(message.question == DNSQuestion(name: try #require(DNSName("web.example")), type: .aaaa))
        #expect(message.edns == DNSExtension(payloadBytes: 1400, wantsSecurity: true))
        #expect(message.isPlainQuestion)
        #expect(message.answerLimit == 1400)
        #expect(try parseDNS(DNSBytes.message(name: "a")).answerLimit == 512)
        for payload: UInt16 in [0, 100, 511] {
            let small = try parseDNS(DNSBytes.message(name: "a", additional: [DNSBytes.opt(payload)]))
            #expect(small.answerLimit == 512)
        }
        #expect(try parseDNS(DNSBytes.message(name: "a", additional: [DNSBytes.opt(65535)])).answerLimit == 4096)
    }

    @Test func whatIsNoPlainQuestion() throws {
        let signature = DNSBytes.Record(name: [0], type: DNSType(rawValue: 250), recordClass: 255, ttl: 0, data: [1])
        for bytes in [
            DNSBytes.message(flags: 0x8100, name: "a"), DNSBytes.message(flags: 0x2800, name: "a"),
            DNSBytes.message(name: "a", recordClass: 3),
            DNSBytes.message(name: "a", answers: [DNSBytes.address(1, ttl: 1)]),
            DNSBytes.message(name: "a", additional: [signature]),
            DNSBytes.message(name: "a", additional: [DNSBytes.opt(512), signature]),
        ] {
            #expect(try !parseDNS(bytes).isPlainQuestion)
        }
    }

    static let broken: [(DNSParseError, [UInt8])] = {
        let good = DNSBytes.message(flags: 0x8180, name: "a.b", answers: [DNSBytes.address(1, ttl: 60)])
        var cases: [(DNSParseError, [UInt8])] = (0..<good.count).map { length in
            // Without the answer it would be a whole message, were its count not one.
            (.truncated, Array(good.prefix(length)))
        }
        cases.append((.trailingBytes, good + [0]))
        for count: UInt8 in [0, 2] {
            var bytes = good
            bytes[5] = count
            cases.append((.questionCount, bytes))
        }
        var record = DNSBytes.address(1, ttl: 1)
        for (error, name): (DNSParseError, [UInt8]) in [
            (.badLabel, [0x41, 0x61, 0]), (.badLabel, [0x80, 0]), (.badPointer, [0xc0, 0]), (.badPointer, [0xc0, 11]),
            // To itself, to behind itself, and a pair that would go round for ever.
            (.badPointer, [0xc0, 21]), (.badPointer, [0xc0, 22]), (.badPointer, [1, 97, 0xc0, 21]),
            (.badPointer, [0xff, 0xff]),
        ] {
            record.name = name
            cases.append((error, DNSBytes.message(flags: 0x8180, name: "a.b", answers: [record])))
        }
        let label = [63] + [UInt8](repeating: 97, count: 63)
        record.name = label + label + label + label + [0]
        cases.append((.nameTooLong, DNSBytes.message(flags: 0x8180, name: "a.b", answers: [record])))
        cases.append((.badPointer, DNSBytes.message(name: "a").replacing([1, 97, 0], with: [0xc0, 12, 0])))
        let opt = DNSBytes.opt(512)
        cases.append((.badExtension, DNSBytes.message(name: "a", additional: [opt, opt])))
        cases.append((.badExtension, DNSBytes.message(name: "a", answers: [opt])))
        var named = opt
        named.name = [0xc0, 12]
        cases.append((.badExtension, DNSBytes.message(name: "a", additional: [named])))
        return cases
    }()

    @Test func brokenMessagesAreRefusedByName() {
        for (expected, bytes) in Self.broken {
            #expect(throws: expected, "\(bytes)") { try parseDNS(bytes) }
        }
    }

    @Test func aNameMayBeMadeOfManyPointers() throws {
        // Each record is named "a" and then the name of the one before: legal until the name is too long.
        func record(_ last: UInt16) -> [UInt8] {
            [1, 97] + DNSBytes.half(0xc000 | last) + DNSBytes.half(16) + DNSBytes.half(1) + [0, 0, 0, 1, 0, 0]
        }
        var bytes = DNSBytes.message(flags: 0x8180, name: "a")
        var last: UInt16 = 12
        for count: UInt16 in 1...126 {
            let here = UInt16(bytes.count)
            bytes += record(last)
            bytes.replaceSubrange(6..<8, with: DNSBytes.half(count))
            last = here
            if count < 126 { #expect(throws: Never.self) { try parseDNS(bytes) } }
        }
        // The question's "a", 126 more, and the zero: 255 bytes exactly. One more is too long.
        #expect(throws: Never.self) { try parseDNS(bytes) }
        bytes += record(last)
        bytes.replaceSubrange(6..<8, with: DNSBytes.half(127))
        #expect(throws: DNSParseError.nameTooLong) { try parseDNS(bytes) }
    }

    @Test func howLongAnswersAreKept() throws {
        func lifetime(
            flags: UInt16 = 0x8180, type: DNSType = .a, _ answers: [DNSBytes.Record],
            authority: [DNSBytes.Record] = [], additional: [DNSBytes.Record] = []
        ) throws -> UInt32? {
            try storeDNS(
                DNSBytes.message(
                    flags: flags, name: "example", type: type, answers: answers, authority: authority,
                    additional: additional)
            ).lifetime
        }
        let alias = DNSBytes.Record(type: .cname, ttl: 20, data: [0xc0, 12])
        let nameServer = DNSBytes.Record(type: DNSType(rawValue: 2), ttl: 9, data: [0xc0, 12])
        #expect(try lifetime([DNSBytes.address(1, ttl: 60), DNSBytes.address(2, ttl: 30)]) == 30)
        #expect(try lifetime([DNSBytes.address(1, ttl: 60)], authority: [nameServer]) == 9)
        #expect(try lifetime([alias, DNSBytes.address(1, ttl: 60)]) == 20)
        #expect(try lifetime(type: .cname, [alias]) == 20)
        #expect(try lifetime(type: .any, [alias]) == 20)
        // OPT's field is no TTL.
        #expect(try lifetime([DNSBytes.address(1, ttl: 60)], additional: [DNSBytes.opt(512)]) == 60)
        #expect(try lifetime([DNSBytes.address(1, ttl: 0)]) == 0)
        #expect(try lifetime([DNSBytes.address(1, ttl: 0x8000_0000)]) == 0)
        // Negative (RFC 2308 §5): the SOA's TTL or its MINIMUM, whichever is less.
        let negative = DNSBytes.soa(ttl: 300, minimum: 40)
        #expect(try lifetime(flags: 0x8183, [], authority: [negative]) == 40)
        #expect(try lifetime(flags: 0x8183, [], authority: [DNSBytes.soa(ttl: 12, minimum: 40)]) == 12)
        #expect(try lifetime([], authority: [negative]) == 40)
        #expect(try lifetime([alias], authority: [negative]) == 20)
        #expect(try lifetime(type: .aaaa, [alias], authority: [DNSBytes.soa(ttl: 9, minimum: 0xffff_ffff)]) == 0)
        // Neither an answer nor a denial: a referral, an alias that leads nowhere yet, failures, what was cut.
        #expect(try lifetime([], authority: [nameServer]) == nil)
        #expect(try lifetime(flags: 0x8183, []) == nil)
        #expect(try lifetime([alias]) == nil)
        #expect(try lifetime(flags: 0x8182, [DNSBytes.address(1, ttl: 60)]) == nil)
        #expect(try lifetime(flags: 0x8185, []) == nil)
        #expect(try lifetime(flags: 0x8380, [DNSBytes.address(1, ttl: 60)]) == nil)
        #expect(try lifetime(flags: 0x0180, [DNSBytes.address(1, ttl: 60)]) == nil)
        let extended = DNSBytes.opt(512, ttl: 0x0100_0000)
        #expect(try lifetime([DNSBytes.address(1, ttl: 60)], additional: [extended]) == nil)
    }

    @Test func storedAnswersAreMadeTheClients() throws {
        let stored = try storeDNS(
            DNSBytes.message(
                id: 9, flags: 0x8580, name: "example.org", answers: [DNSBytes.address(1, ttl: 60)],
                authority: [DNSBytes.address(2, ttl: 5)], additional: [DNSBytes.opt(4096)]))
        let question = DNSBytes.message(
            id: 0xabcd, flags: 0x0010, name: "eXample.ORG", additional: [DNSBytes.opt(1400)])
        #expect(stored.answers(try parseDNS(DNSBytes.message(id: 9, name: "EXAMPLE.org"))))
        #expect(!stored.answers(try parseDNS(DNSBytes.message(id: 8, name: "example.org"))))
        #expect(!stored.answers(try parseDNS(DNSBytes.message(id: 9, name: "example.com"))))
        #expect(!stored.answers(try parseDNS(DNSBytes.message(id: 9, name: "example.org", type: .aaaa))))

        let fresh = try stored.answer(question)
        #expect(Array(fresh[0..<4]) == [0xab, 0xcd, 0x84, 0x90], "id, QR AA, RA CD")
        #expect(Array(fresh[12..<24]) == Array(question[12..<24]), "the client's spelling")
        #expect(try dnsRecords(fresh).map(\.ttl) == [60, 5, 0])
        #expect(try parseDNS(fresh).edns?.payloadBytes == DNSWriter.payloadBytes)

        let later = try stored.answer(question, age: .seconds(7))
        #expect(try dnsRecords(later).map(\.ttl) == [53, 0, 0])
        #expect(later[2] & 0x04 == 0, "what was kept is not authoritative")
        #expect(try dnsRecords(later).map(\.data) == dnsRecords(fresh).map(\.data))

        let stale = try stored.answer(question, age: .stale(ttl: 30))
        #expect(try dnsRecords(stale).map(\.ttl) == [30, 30, 0])
    }

    @Test func whatDoesNotFitIsMarkedTruncated() throws {
        let many = (0..<60).map { DNSBytes.address($0, ttl: 1) }
        let stored = try storeDNS(DNSBytes.message(flags: 0x8180, name: "many", answers: many))
        let plain = DNSBytes.message(name: "many")
        let cut = try stored.answer(plain)
        #expect(try parseDNS(cut).header.isTruncated)
        #expect(try dnsRecords(cut).isEmpty)
        #expect(try dnsRecords(stored.answer(plain, limit: 65535)).count == 60)
        #expect(try dnsRecords(stored.answer(plain, limit: stored.bytes.count)).count == 60)
        #expect(try parseDNS(stored.answer(plain, limit: stored.bytes.count - 1)).header.isTruncated)
        let extended = DNSBytes.message(name: "many", additional: [DNSBytes.opt(512)])
        let cutToo = try parseDNS(stored.answer(extended))
        #expect(cutToo.header.isTruncated && cutToo.edns?.payloadBytes == DNSWriter.payloadBytes)
    }

    @Test func aKnownNameIsNotDenied() throws {
        let denial = try storeDNS(
            DNSBytes.message(flags: 0x8183, name: "shop", authority: [DNSBytes.soa(ttl: 5, minimum: 5)]))
        let question = DNSBytes.message(name: "shop")
        #expect(try parseDNS(denial.answer(question)).responseCode == .nameError)
        let softened = try denial.answer(question, nameExists: true)
        #expect(try parseDNS(softened).responseCode == .noError)
        #expect(try dnsRecords(softened).map(\.type) == [.soa])
        let failure = try storeDNS(DNSBytes.message(flags: 0x8182, name: "shop"))
        #expect(try parseDNS(failure.answer(question, nameExists: true)).responseCode == .serverFailure)
    }

    @Test func answersOfOurOwn() throws {
        let question = DNSBytes.message(
            id: 3, name: "Web.default", additional: [DNSBytes.opt(1232, ttl: 0x8000)])
        let message = try parseDNS(question)
        var writer = DNSWriter()
        question.withUnsafeBytes { writer.startResponse(to: message, $0, .noError, isAuthoritative: true) }
        let target = try #require(DNSName("web.default.svc.cluster.local"))
        writer.addAlias(target, ttl: 30)
        writer.addAddress(IPAddress(v4: 0x0a00_0001), of: .alias, ttl: 30)
        writer.addAddress(IPAddress(high: 0xfd00_0000_0000_0000, low: 1), of: .question, ttl: 31)
        writer.finishResponse(to: message, limit: 1232)
        let answer = try parseDNS(writer.bytes)
        #expect(Array(writer.bytes[0..<4]) == [0, 3, 0x85, 0x80])
        #expect(answer.question == message.question && answer.answerCount == 3)
        #expect(answer.edns == DNSExtension(payloadBytes: DNSWriter.payloadBytes, wantsSecurity: true))
        #expect(Array(writer.bytes[12..<17]) == Array(question[12..<17]), "spelt as asked")
        let records = try dnsRecords(writer.bytes)
        #expect(records.map(\.type) == [.cname, .a, .aaaa, .opt])
        #expect(records[0].data == target.bytes && records[1].data == [10, 0, 0, 1] && records[2].ttl == 31)
        let owners = writer.bytes.withUnsafeBytes { raw in
            try? DNSName.read(raw, at: records[0].data.count + message.questionEnd + 12).0
        }
        #expect(owners == target, "the address stands under the alias's target")

        // The same writer again, too large now.
        question.withUnsafeBytes { writer.startResponse(to: message, $0, .noError, isAuthoritative: true) }
        for last in 0..<100 { writer.addAddress(IPAddress(v4: UInt32(last)), of: .question, ttl: 30) }
        writer.finishResponse(to: message, limit: 1232)
        #expect(try parseDNS(writer.bytes).header.isTruncated)
        #expect(try dnsRecords(writer.bytes).map(\.type) == [.opt])
    }

    @Test func refusalsAndOurQuestions() throws {
        let extended = DNSBytes.opt(4000, ttl: 0x0001_8000, data: [1, 2])
        let question = DNSBytes.message(id: 3, flags: 0x0110, name: "Web.default", additional: [extended])
        let message = try parseDNS(question)
        var writer = DNSWriter()
        question.withUnsafeBytes { writer.startResponse(to: message, $0, .badVersion, isAuthoritative: false) }
        writer.finishResponse(to: message, limit: 512)
        #expect(try parseDNS(writer.bytes).responseCode == .badVersion)
        #expect(try parseDNS(writer.bytes).edns?.version == 0)

        question.withUnsafeBytes { writer.writeQuestion(of: message, $0) }
        writer.setID(0x7788)
        let ours = try parseDNS(writer.bytes)
        #expect(ours.header == DNSHeader(id: 0x7788, flags: 0x0110))
        #expect(ours.question == message.question && ours.isPlainQuestion)
        #expect(ours.edns == DNSExtension(payloadBytes: DNSWriter.payloadBytes, wantsSecurity: true))
        #expect(writer.bytes.count == message.questionEnd + 11, "options of another hop stay there")

        let garbage: [UInt8] = [9, 8, 0x29, 0xff] + [UInt8](repeating: 0xff, count: 20)
        let bare = garbage.withUnsafeBytes { DNSWriter.bareResponse(to: $0, .formatError) }
        #expect(bare == [9, 8, 0xa9, 1] + [UInt8](repeating: 0, count: 8))
        #expect([UInt8](garbage[..<11]).withUnsafeBytes { DNSWriter.bareResponse(to: $0, .formatError) } == nil)
        let response = DNSBytes.message(flags: 0x8000, name: "a")
        #expect(response.withUnsafeBytes { DNSWriter.bareResponse(to: $0, .formatError) } == nil)
    }
}
