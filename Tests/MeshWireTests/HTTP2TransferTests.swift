import MeshWire
import Testing

/// Random data through random windows, with readers that take their time.
@Suite struct HTTP2TransferTests {
    static let seeds: [UInt64] = [1, 2, 3, 4, 5, UInt64.random(in: 6...UInt64.max)]

    @Test(arguments: seeds)
    func streamsCarryTheirBytesWithinTheWindows(seed: UInt64) throws {
        var chance = TestRandom(seed: seed)
        var settings = (HTTP2Settings(), HTTP2Settings())
        settings.0.streamWindow = Int.random(in: 1...40_000, using: &chance)
        settings.1.streamWindow = Int.random(in: 1...40_000, using: &chance)
        settings.0.connectionWindow = Int.random(in: 65_535...200_000, using: &chance)
        settings.1.connectionWindow = Int.random(in: 65_535...200_000, using: &chance)
        let link = Link(client: settings.0, server: settings.1)
        // Windows of streams hold only once the other side has heard of them.
        link.settle()
        var sizes: [Int32: (up: Int, down: Int)] = [:]
        for _ in 0..<32 {
            let id = try link.clientSession.request(connectFields)
            // Small windows make many small frames.
            let limit = min(settings.0.streamWindow, settings.1.streamWindow) < 500 ? 2_000 : 60_000
            let size = (Int.random(in: 0...limit, using: &chance), Int.random(in: 0...limit, using: &chance))
            sizes[id] = size
            link.client.send(id, size.0)
            link.server.stream(id).left = size.1
        }
        link.server.onHeaders = { [unowned link] id, _, _ in
            link.serverSession.respond(stream: id, headers: okFields, endStream: false)
        }
        let ids = sizes.keys.sorted()
        var steps = 0
        while ids.contains(where: { link.client.stream($0).closed == nil || link.server.stream($0).closed == nil }) {
            steps += 1
            try #require(steps < 2_000_000, "no end, seed \(seed)")
            step(link, ids, &chance)
        }
        for id in ids {
            let (client, server) = (link.client.stream(id), link.server.stream(id))
            #expect(server.received == sizes[id]!.up && server.isCorrect && server.ends == 1, "seed \(seed)")
            #expect(client.received == sizes[id]!.down && client.isCorrect && client.ends == 1, "seed \(seed)")
            #expect(client.closed == 0 && server.closed == 0, "seed \(seed)")
        }
        #expect(link.client.highestUnread <= settings.0.connectionWindow, "seed \(seed)")
        #expect(link.server.highestUnread <= settings.1.connectionWindow, "seed \(seed)")
        #expect(link.client.highestUnreadOfStream <= settings.0.streamWindow, "seed \(seed)")
        #expect(link.server.highestUnreadOfStream <= settings.1.streamWindow, "seed \(seed)")
        #expect(link.clientSession.openStreams == 0 && link.serverSession.openStreams == 0, "seed \(seed)")
        #expect(link.clientSession.failure == nil && link.serverSession.failure == nil, "seed \(seed)")
    }

    private func step(_ link: Link, _ ids: [Int32], _ chance: inout TestRandom) {
        switch chance.next() % 6 {
        case 0: link.produce(link.clientSession, room: .random(in: 64...20_000, using: &chance))
        case 1: link.produce(link.serverSession, room: .random(in: 64...20_000, using: &chance))
        case 2: link.deliver(to: link.serverSession, atMost: .random(in: 1...20_000, using: &chance))
        case 3: link.deliver(to: link.clientSession, atMost: .random(in: 1...20_000, using: &chance))
        default:
            let peer = Bool.random(using: &chance) ? link.client : link.server
            for id in ids where peer.stream(id).unread > 0 && chance.next() % 4 == 0 {
                peer.consume(id, .random(in: 1...peer.stream(id).unread, using: &chance))
            }
        }
    }

    @Test func readersThatNeverReadStopTheSenderAtTheWindow() throws {
        var settings = HTTP2Settings()
        settings.streamWindow = 100_000
        settings.connectionWindow = 150_000
        let link = Link(server: settings)
        let first = try link.open()
        let second = try link.open()
        link.client.send(first, 1 << 20)
        link.settle()
        #expect(link.server.stream(first).unread == 100_000)
        link.client.send(second, 1 << 20)
        link.settle()
        #expect(link.server.stream(second).unread == 50_000)
        #expect(!link.clientSession.wantsWrite)
        // What is read is given back: the stream's window in full, the session's to whoever asks first.
        link.server.consume(first, 100_000)
        link.settle()
        #expect(link.server.unread == 150_000)
    }

    @Test func payloadIsWrittenBehindRoomForItsHeader() throws {
        let link = Link()
        let id = try link.open()
        link.client.send(id, 100_000)
        // Odd buffers: every batch but the last is filled without fragments of a few bytes.
        while link.produce(link.clientSession, room: 20_011) > 0 {}
        #expect(link.client.smallestFrameRoom >= 3_000)
        link.settle()
        #expect(link.server.stream(id).received == 100_000 && link.server.stream(id).isCorrect)
    }
}
