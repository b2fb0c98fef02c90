import MeshWire
import Testing

/// SETTINGS, PING, GOAWAY and headers.
@Suite struct HTTP2SessionTests {
    @Test func aClientAnnouncesItsWindowsAndNoPush() {
        let session = HTTP2Session(role: .client, settings: HTTP2Settings(), events: HTTP2Events())
        let bytes = drain(session)
        #expect(bytes.starts(with: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8))
        let frames = Frame.parse(Array(bytes.dropFirst(24)))
        #expect(frames.map(\.type) == [4, 8])
        let entries = settingsEntries(frames[0])
        #expect(entries == [4: 1 << 20, 5: 16384, 6: 16384, 2: 0])
        #expect(frames[1].payload == Frame.word(UInt32((16 << 20) - 65535)))
    }

    @Test func aServerAnnouncesItsStreamsAndNoExtendedConnect() {
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = 77
        settings.streamWindow = 12345
        let session = HTTP2Session(role: .server, settings: settings, events: HTTP2Events())
        let entries = settingsEntries(Frame.parse(drain(session))[0])
        #expect(entries == [4: 12345, 5: 16384, 6: 16384, 3: 77])
    }

    private func settingsEntries(_ frame: Frame) -> [Int: Int] {
        var entries: [Int: Int] = [:]
        for start in stride(from: 0, to: frame.payload.count, by: 6) {
            let entry = frame.payload[start..<(start + 6)].map(Int.init)
            entries[entry[0] << 8 | entry[1]] = entry[2...].reduce(0) { $0 << 8 | $1 }
        }
        return entries
    }

    @Test func pingsAreAnswered() {
        let link = Link()
        link.clientSession.ping()
        link.serverSession.ping()
        link.settle()
        #expect(link.client.pongs == 1 && link.server.pongs == 1)
        #expect(link.client.settings == 1 && link.server.settings == 1)
    }

    @Test func gracefulGoAwayServesWhatIsOnItsWay() throws {
        let link = Link()
        let first = try link.open()
        link.serverSession.goAway()
        // A request that crosses the notice on the wire.
        let crossing = try link.clientSession.request(connectFields)
        while link.produce(link.serverSession) > 0 {}
        while link.produce(link.clientSession) > 0 {}
        link.deliver(to: link.clientSession)
        #expect(link.client.goAways.map(\.last) == [Int32.max])
        #expect(throws: HTTP2RequestRefusal.goingAway) { try link.clientSession.request(connectFields) }
        link.settle()
        #expect(link.client.goAways.map(\.last) == [Int32.max, crossing])
        #expect(link.client.goAways.allSatisfy { $0.code == 0 })
        #expect(!link.serverSession.isFinished && !link.clientSession.isFinished)
        link.serverSession.respond(stream: crossing, headers: okFields, endStream: false)
        for id in [first, crossing] {
            link.client.send(id, 1_000)
            link.server.send(id, 1_000)
        }
        link.settle()
        #expect(link.client.stream(crossing).received == 1_000 && link.server.stream(first).received == 1_000)
        #expect(link.serverSession.isFinished && link.clientSession.isFinished)
        #expect(link.clientSession.failure == nil && link.serverSession.failure == nil)
    }

    @Test func aClientsGoAwayLetsItsStreamsFinish() throws {
        let link = Link()
        let id = try link.open()
        link.clientSession.goAway()
        link.settle()
        #expect(link.server.goAways.map(\.code) == [0])
        #expect(throws: HTTP2RequestRefusal.goingAway) { try link.clientSession.request(connectFields) }
        link.client.send(id, 10)
        link.server.send(id, 10)
        link.settle()
        #expect(link.server.stream(id).received == 10 && link.clientSession.isFinished)
    }

    @Test func requestsThatCouldNotGoOutAreRefused() throws {
        let link = Link()
        link.settle()
        let id = try link.clientSession.request(connectFields)
        link.downward = Frame(type: 7, payload: Frame.word(0) + Frame.word(0)).bytes
        link.deliver(to: link.clientSession)
        link.settle()
        #expect(link.client.stream(id).closed == HTTP2ErrorCode.refusedStream)
        #expect(link.clientSession.openStreams == 0 && link.server.streams.isEmpty)
    }

    @Test func terminationIsTheLastWord() throws {
        let link = Link()
        let id = try link.open()
        link.serverSession.terminate(code: HTTP2ErrorCode.noError)
        link.settle()
        #expect(link.client.goAways.map(\.code) == [0])
        #expect(link.serverSession.isFinished && link.serverSession.failure == nil)
        #expect(link.client.goAways[0].last == id)
    }

    @Test func headersArriveInOrderWithTheirValues() throws {
        let link = Link()
        let fields =
            connectFields + [
                HeaderField(name: "baggage", value: "a=b"),
                HeaderField(name: "traceparent", value: "x", isVolatile: true),
                HeaderField(name: "baggage", value: "c=d"), HeaderField(name: "empty", value: ""),
            ]
        for _ in 0..<3 {
            let id = try link.clientSession.request(fields)
            link.settle()
            #expect(
                link.server.stream(id).headers.map { "\($0.name)=\($0.value)" }
                    == fields.map { "\($0.name)=\($0.value)" })
        }
    }

    @Test func aHeaderListOverTheLimitIsMarked() throws {
        var settings = HTTP2Settings()
        settings.headerListBytes = 1_000
        let link = Link(server: settings)
        var status: Int?
        link.server.onHeaders = { _, block, _ in
            do throws(ConnectRequestError) { _ = try ConnectRequest(block) } catch { status = error.status }
        }
        let large = HeaderField(name: "baggage", value: String(repeating: "x", count: 900))
        let id = try link.clientSession.request(connectFields + [large])
        link.settle()
        #expect(link.server.stream(id).exceedsLimit)
        #expect(status == 431)
        // The connection goes on.
        let next = try link.clientSession.request(connectFields)
        link.settle()
        #expect(!link.server.stream(next).exceedsLimit && link.server.stream(next).headers.count == 2)
    }

    @Test func informationalResponsesAreSkipped() throws {
        let link = Link()
        let id = try link.clientSession.request([
            HeaderField(name: ":method", value: "GET"), HeaderField(name: ":scheme", value: "http"),
            HeaderField(name: ":path", value: "/"), HeaderField(name: ":authority", value: "a"),
        ])
        link.settle()
        link.downward =
            Frame.headers(id, [(":status", "103")]).bytes + Frame.headers(id, [(":status", "404")], end: true).bytes
        var seen: [String?] = []
        link.client.onHeaders = { _, block, _ in seen.append(block.value(":status")) }
        link.deliver(to: link.clientSession)
        #expect(seen == ["404"])
    }

    @Test(arguments: [
        [(":method", "CONNECT")],
        [(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http"), (":path", "/")],
        [(":method", "CONNECT"), (":authority", "a:1"), ("Upper", "x")],
        [(":method", "CONNECT"), (":authority", "a:1"), ("connection", "close")],
    ])
    func malformedRequestsAreResetAndTold(fields: [(String, String)]) {
        let link = Link()
        link.upward = Frame.preface + Frame.headers(1, fields).bytes
        link.deliver(to: link.serverSession)
        #expect(link.server.malformed == [1])
        #expect(link.server.streams.isEmpty)
        let reset = Frame.parse(drain(link.serverSession)).first { $0.type == 3 }
        #expect(reset?.stream == 1 && reset?.payload == Frame.word(HTTP2ErrorCode.protocolError))
        #expect(link.serverSession.failure == nil)
    }
}
