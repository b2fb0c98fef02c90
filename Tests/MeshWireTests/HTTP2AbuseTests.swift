import MeshWire
import Testing

/// Peers that break the rules or make work without end.
@Suite struct HTTP2AbuseTests {
    /// Feeds a server, a piece at a time, until it fails.
    private func feed(_ session: HTTP2Session, now: UInt64 = 1, _ pieces: [[UInt8]]) -> HTTP2Failure? {
        for piece in pieces {
            if let failure = piece.withUnsafeBytes({ session.receive($0, now: now) }) { return failure }
        }
        return nil
    }

    private func server(_ settings: HTTP2Settings = HTTP2Settings(), events: HTTP2Events = HTTP2Events())
        -> HTTP2Session
    {
        HTTP2Session(role: .server, settings: settings, events: events)
    }

    /// The code of the GOAWAY that ends what the session produces.
    private func lastGoAway(_ session: HTTP2Session) -> UInt32? {
        let last = Frame.parse(drain(session)).last { $0.type == 7 }
        return last.map { $0.payload[4..<8].reduce(0) { $0 << 8 | UInt32($1) } }
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ])
    func garbageInsteadOfThePrefaceIsATypedFailure(text: String) {
        let session = server()
        #expect(feed(session, [Array(text.utf8)]) == .badPreface)
        #expect(feed(session, [Array(text.utf8)]) == .badPreface)
        #expect(!session.wantsRead && !session.wantsWrite && session.isFinished)
        #expect(drain(session).isEmpty)
    }

    static let floods: [(String, [UInt8])] = [
        ("ping", Frame.ping().bytes), ("settings", Frame.settings().bytes),
        ("priority", Frame(type: 2, stream: 1, payload: [0, 0, 0, 3, 9]).bytes),
        ("empty data", Frame.data(1, []).bytes),
    ]

    @Test(arguments: floods)
    func floodsOfControlFramesEndTheSession(name: String, frame: [UInt8]) {
        var settings = HTTP2Settings()
        settings.controlFrameBurst = 100
        let session = server(settings)
        let start = Frame.preface + Frame.connect(1).bytes
        var frames = 0
        var failure = feed(session, [start])
        while failure == nil, frames < 1_000 {
            failure = feed(session, [frame])
            _ = session.wantsWrite ? drain(session) : []
            frames += 1
        }
        #expect(failure == .flood(.controlFrames), "\(name)")
        #expect((99...100).contains(frames))
    }

    @Test func requestsOverTheLimitOfStreamsAreCountedToo() {
        var settings = HTTP2Settings()
        settings.controlFrameBurst = 50
        settings.maxConcurrentStreams = 1
        let session = server(settings)
        var failure = feed(session, [Frame.preface])
        var id: Int32 = 1
        while failure == nil, id < 10_000 {
            failure = feed(session, [Frame.connect(id).bytes])
            _ = drain(session)
            id += 2
        }
        #expect(failure == .flood(.controlFrames))
        #expect(id < 110 && session.openStreams == 1)
    }

    @Test func theFloodsLastWordIsCalm() {
        var settings = HTTP2Settings()
        settings.controlFrameBurst = 10
        let session = server(settings)
        let pings = (0..<50).flatMap { _ in Frame.ping().bytes }
        #expect(feed(session, [Frame.preface, pings]) == .flood(.controlFrames))
        #expect(lastGoAway(session) == HTTP2ErrorCode.enhanceYourCalm)
        #expect(session.isFinished)
    }

    @Test func controlFramesAtAModestRateAreWelcomeForEver() {
        var settings = HTTP2Settings()
        settings.controlFrameBurst = 10
        settings.controlFramesPerSecond = 10
        let session = server(settings)
        #expect(feed(session, [Frame.preface]) == nil)
        for second in 1...5_000 {
            let failure = feed(session, now: UInt64(second) * 100_000_000, [Frame.ping().bytes])
            #expect(failure == nil)
            _ = drain(session)
        }
    }

    @Test func rapidResetEndsTheSession() {
        var settings = HTTP2Settings()
        settings.unansweredResetBurst = 50
        let session = server(settings)
        var failure = feed(session, [Frame.preface])
        var id: Int32 = 1
        while failure == nil, id < 10_000 {
            failure = feed(session, [Frame.connect(id).bytes + Frame.reset(id).bytes])
            id += 2
        }
        #expect(failure == .flood(.resets))
        #expect(id == 103)
        #expect(lastGoAway(session) == HTTP2ErrorCode.enhanceYourCalm)
    }

    @Test func resetsOfAnsweredStreamsAreDailyWork() {
        final class Answering: HTTP2Events {
            unowned var session: HTTP2Session!
            override func headers(stream id: Int32, _ fields: HeaderBlock, endStream: Bool) {
                session.respond(stream: id, headers: okFields, endStream: false)
            }
        }
        let events = Answering()
        let session = server(events: events)
        events.session = session
        #expect(feed(session, [Frame.preface]) == nil)
        for id in stride(from: Int32(1), to: 10_001, by: 2) {
            #expect(feed(session, [Frame.connect(id).bytes]) == nil)
            _ = drain(session)
            #expect(feed(session, [Frame.reset(id).bytes]) == nil)
        }
    }

    @Test func aPeerThatDoesNotReadCannotMakeUsQueueForEver() {
        var settings = HTTP2Settings()
        settings.queuedFrames = 200
        settings.maxConcurrentStreams = 1
        let session = server(settings)
        var failure = feed(session, [Frame.preface])
        var sent = 0
        while failure == nil, sent < 2_000 {
            failure = feed(session, [Frame.ping().bytes])
            sent += 1
        }
        #expect(failure == .flood(.unreadFrames))
        #expect(sent < 300)
    }

    @Test func continuationWithoutEndIsStopped() {
        let session = server()
        let start = Frame.preface + Frame.headers(1, [(":method", "CONNECT")], endHeaders: false).bytes
        let next = Frame(type: 9, stream: 1, payload: Frame.block([("a", String(repeating: "b", count: 1_000))])).bytes
        var failure = feed(session, [start])
        var frames = 0
        while failure == nil, frames < 1_000 {
            failure = feed(session, [next])
            _ = drain(session)
            failure = failure ?? session.failure
            frames += 1
        }
        #expect(failure != nil)
        #expect(frames < 20)
    }

    static let violations: [(String, [UInt8], UInt32)] = [
        ("DATA on the connection", Frame.data(0, [1]).bytes, 1),
        ("frame too large", [0x00, 0x40, 0x01, 0, 0, 0, 0, 0, 1], 6),
        ("window of the connection overflows", Frame(type: 8, payload: Frame.word(0x7fff_ffff)).bytes, 3),
        ("bad compression", Frame(type: 1, flags: 4, stream: 1, payload: [0xff, 0xff, 0xff, 0xff, 0xff]).bytes, 9),
        ("even stream", Frame.connect(2).bytes, 1), ("DATA on an idle stream", Frame.data(5, [1]).bytes, 1),
        ("PING of seven bytes", Frame(type: 6, payload: Array(repeating: 0, count: 7)).bytes, 6),
    ]

    @Test(arguments: violations)
    func violationsAreKnownWhenTheirGoAwayIsProduced(name: String, bytes: [UInt8], code: UInt32) {
        let session = server()
        _ = feed(session, [Frame.preface, bytes])
        #expect(lastGoAway(session) == code, "\(name)")
        guard case .protocolViolation(code, _)? = session.failure else {
            Issue.record("\(name): \(String(describing: session.failure))")
            return
        }
        #expect(feed(session, [Frame.ping().bytes]) == session.failure)
        #expect(session.isFinished)
    }

    // MARK: Fuzz

    /// Takes everything and answers everything, as a node would.
    private final class Busy: HTTP2Events {
        unowned var session: HTTP2Session!
        var chance: TestRandom
        init(_ chance: TestRandom) {
            self.chance = chance
            super.init()
        }
        override func headers(stream id: Int32, _ fields: HeaderBlock, endStream: Bool) {
            if session.role == .server, chance.next() % 4 != 0, (try? ConnectRequest(fields)) != nil {
                session.respond(stream: id, headers: okFields, endStream: chance.next() % 4 == 0)
            } else if chance.next() % 2 == 0 {
                session.reset(stream: id, code: 8)
            }
        }
        override func data(stream id: Int32, _ bytes: UnsafeRawBufferPointer) {
            session.consumed(stream: id, bytes: bytes.count / 2)
        }
        override func outgoingData(stream: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
            .bytes(min(buffer.count, 50), end: chance.next() % 3 == 0)
        }
    }

    /// What a lively client (or server) says, as it goes over the wire.
    private func recording(fromClient: Bool) throws -> [UInt8] {
        let link = Link()
        var tape: [UInt8] = []
        let ids = try (0..<6).map { _ in try link.clientSession.request(connectFields) }
        link.server.onHeaders = { [unowned link] id, _, _ in
            link.serverSession.respond(stream: id, headers: okFields, endStream: false)
        }
        for id in ids {
            link.client.send(id, 700)
            link.server.stream(id).left = 700
        }
        link.clientSession.ping()
        for _ in 0..<6 {
            while link.produce(link.clientSession) > 0 {}
            while link.produce(link.serverSession) > 0 {}
            tape += fromClient ? link.upward : link.downward
            link.deliver(to: link.serverSession)
            link.deliver(to: link.clientSession)
        }
        return tape
    }

    @Test(arguments: [true, false])
    func corruptedConversationsNeverCrash(fromClient: Bool) throws {
        var chance = TestRandom(seed: .random(in: 0...UInt64.max))
        print("HTTP/2 corruption seed \(chance.seed)")
        let tape = try recording(fromClient: fromClient)
        let memory = HTTP2Memory()
        for _ in 0..<1_500 {
            var bytes = tape
            for _ in 0..<Int.random(in: 0...8, using: &chance) {
                let place = Int.random(in: 0..<bytes.count, using: &chance)
                switch chance.next() % 3 {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &chance)
                case 1: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &chance)
                default:
                    bytes.removeSubrange(place..<min(bytes.count, place + Int.random(in: 0...20, using: &chance)))
                }
                if bytes.isEmpty { bytes = [0] }
            }
            if chance.next() % 4 == 0 { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &chance)) }
            try play(bytes, to: fromClient ? .server : .client, &chance, memory)
        }
        #expect(memory.liveBlocks == 0)
    }

    @Test func randomFramesNeverCrash() throws {
        var chance = TestRandom(seed: .random(in: 0...UInt64.max))
        print("HTTP/2 frame seed \(chance.seed)")
        let memory = HTTP2Memory()
        for _ in 0..<1_500 {
            var bytes = Frame.preface
            for _ in 0..<Int.random(in: 1...30, using: &chance) {
                let id = Int32.random(in: 0...9, using: &chance)
                if chance.next() % 3 == 0 {
                    bytes += Frame.connect(id).bytes
                    continue
                }
                let count = Int.random(in: 0...40, using: &chance)
                let payload = (0..<count).map { _ in UInt8.random(in: 0...255, using: &chance) >> (chance.next() % 8) }
                bytes +=
                    Frame(
                        type: .random(in: 0...12, using: &chance), flags: .random(in: 0...255, using: &chance) & 0x2d,
                        stream: id, payload: payload
                    ).bytes
            }
            try play(bytes, to: .server, &chance, memory)
        }
        #expect(memory.liveBlocks == 0)
    }

    private func play(
        _ bytes: [UInt8], to role: HTTP2Session.Role, _ chance: inout TestRandom, _ memory: HTTP2Memory
    ) throws {
        let events = Busy(TestRandom(seed: chance.next()))
        let session = HTTP2Session(role: role, settings: HTTP2Settings(), events: events, memory: memory)
        events.session = session
        if role == .client {
            for _ in 0..<6 { _ = try session.request(connectFields) }
            _ = drain(session)
        }
        var rest = bytes[...]
        while !rest.isEmpty {
            let piece = Array(rest.prefix(Int.random(in: 1...2_000, using: &chance)))
            rest = rest.dropFirst(piece.count)
            let failure = piece.withUnsafeBytes { session.receive($0, now: 1) }
            if chance.next() % 2 == 0 { _ = drain(session) }
            if failure != nil { break }
        }
        _ = drain(session)
        if session.failure != nil { #expect(!session.wantsRead && !session.wantsWrite) }
    }
}
