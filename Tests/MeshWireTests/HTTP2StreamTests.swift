import MeshWire
import Testing

/// How streams end, and what is told of it.
@Suite struct HTTP2StreamTests {
    @Test func clientEndsFirstAndStillReceives() throws {
        let link = Link()
        let id = try link.open()
        link.client.send(id, 10)
        link.settle()
        #expect(link.server.stream(id).ends == 1 && link.server.stream(id).closed == nil)
        link.server.send(id, 20_000)
        link.settle()
        #expect(link.client.stream(id).received == 20_000 && link.client.stream(id).ends == 1)
        #expect(link.client.stream(id).closed == 0 && link.server.stream(id).closed == 0)
        #expect(link.clientSession.openStreams == 0 && link.serverSession.openStreams == 0)
    }

    @Test func serverEndsFirstAndStillReceives() throws {
        let link = Link()
        let id = try link.open()
        link.server.send(id, 0)
        link.settle()
        #expect(link.client.stream(id).ends == 1 && link.client.stream(id).closed == nil)
        link.client.send(id, 20_000)
        link.settle()
        #expect(link.server.stream(id).received == 20_000 && link.server.stream(id).closed == 0)
    }

    @Test(arguments: [true, false])
    func resetReachesTheOtherSideAndIsTheLastEvent(fromClient: Bool) throws {
        let link = Link()
        let id = try link.open()
        link.client.send(id, 5_000, ends: false)
        link.server.send(id, 5_000, ends: false)
        link.settle()
        let (resetting, other) = fromClient ? (link.client, link.server) : (link.server, link.client)
        resetting.session.reset(stream: id, code: HTTP2ErrorCode.connectError)
        link.settle()
        #expect(other.stream(id).closed == HTTP2ErrorCode.connectError)
        #expect(other.stream(id).ends == 0)
        #expect(resetting.stream(id).closed == nil, "no event for a stream that this side reset")
        #expect(link.clientSession.openStreams == 0 && link.serverSession.openStreams == 0)
        // Late calls have no effect.
        resetting.session.consumed(stream: id, bytes: 5_000)
        resetting.session.resume(stream: id)
        resetting.session.reset(stream: id, code: 8)
        #expect(!resetting.session.wantsWrite)
    }

    @Test func nothingIsToldOfAStreamAfterItsReset() throws {
        let link = Link()
        let id = try link.open()
        link.client.send(id, 30_000)
        while link.produce(link.clientSession) > 0 {}
        // In the middle of a frame.
        link.deliver(to: link.serverSession, atMost: 5_000)
        let before = link.server.stream(id).received
        #expect(before > 0)
        link.serverSession.reset(stream: id, code: HTTP2ErrorCode.cancel)
        link.settle()
        #expect(link.server.stream(id).received == before)
        #expect(link.server.stream(id).ends == 0 && link.server.stream(id).closed == nil)
        #expect(link.client.stream(id).closed == HTTP2ErrorCode.cancel)
    }

    @Test(arguments: ["reset by us", "reset by the peer", "reset while data is on its way", "both ends", "dropped"])
    func aStreamThatLeavesGivesTheSessionsWindowBack(how: String) throws {
        var settings = HTTP2Settings()
        settings.connectionWindow = 65_535
        let link = Link(server: settings)
        // Several times the session's window passes through streams whose bytes nobody consumes.
        for _ in 0..<5 {
            let id = try link.open()
            link.client.send(id, 60_000)
            switch how {
            case "reset by us":
                link.settle()
                #expect(link.server.stream(id).unread == 60_000)
                link.serverSession.reset(stream: id, code: 8)
            case "reset by the peer":
                link.client.stream(id).endsWhenSent = false
                link.settle()
                link.clientSession.reset(stream: id, code: 8)
                link.settle()
                #expect(link.server.stream(id).closed == 8 && link.server.stream(id).unread == 60_000)
                link.server.consume(id, 10_000)
                link.server.consume(id, 50_000)
            case "reset while data is on its way":
                while link.produce(link.clientSession) > 0 {}
                link.deliver(to: link.serverSession, atMost: 20_000)
                link.serverSession.reset(stream: id, code: 8)
            default:
                link.server.send(id, 0)
                link.settle()
                #expect(link.server.stream(id).closed == 0 && link.server.stream(id).unread == 60_000)
                if how == "dropped" {
                    link.serverSession.reset(stream: id, code: 8)
                } else {
                    link.server.consume(id, 60_000)
                }
            }
            link.settle()
            #expect(link.serverSession.openStreams == 0)
        }
        let last = try link.open()
        link.server.onData = { [unowned link] id, count in if id == last { link.server.consume(id, count) } }
        link.client.send(last, 100_000)
        link.settle()
        #expect(link.server.stream(last).received == 100_000)
    }

    @Test func bytesOfClosedStreamsStillCountAgainstTheSessionsWindow() throws {
        var settings = HTTP2Settings()
        settings.connectionWindow = 65_535
        let link = Link(server: settings)
        // A peer that fills streams and resets them gets no further than the window, however often it tries.
        for _ in 0..<10 {
            let id = try link.open()
            link.client.send(id, 40_000, ends: false)
            link.settle()
            link.clientSession.reset(stream: id, code: 8)
            link.settle()
            link.serverSession.resume(stream: id)
            #expect(!link.serverSession.respond(stream: id, headers: okFields, endStream: true))
        }
        #expect(link.server.unread == 65_535)
        #expect(link.serverSession.openStreams == 0)
    }

    @Test func callsFromInsideEventsAreLegal() throws {
        let link = Link()
        var opened: [Int32] = []
        link.server.onHeaders = { [unowned link] id, _, _ in
            link.serverSession.respond(stream: id, headers: okFields, endStream: false)
            link.serverSession.ping()
        }
        link.server.onData = { [unowned link] id, count in
            link.server.consume(id, count)
            if id == 1 { link.server.send(id, 10) } else { link.serverSession.reset(stream: id, code: 8) }
        }
        link.client.onHeaders = { [unowned link] id, _, _ in link.client.send(id, 1_000) }
        link.client.onClosed = { [unowned link] _, _ in
            guard opened.count < 4 else { return }
            if let id = try? link.clientSession.request(connectFields) { opened.append(id) }
        }
        opened.append(try link.clientSession.request(connectFields))
        link.settle()
        #expect(opened == [1, 3, 5, 7])
        #expect(link.client.stream(1).received == 10)
        #expect(link.client.stream(7).closed == 8)
        #expect(link.clientSession.failure == nil && link.serverSession.failure == nil)
    }

    @Test func callsFromInsideOutgoingDataAreLegal() throws {
        let link = Link()
        let id = try link.open()
        let other = try link.open()
        var asked = 0
        link.client.onOutgoing = { [unowned link] stream in
            guard stream == id else { return }
            asked += 1
            // Data comes while it is being asked for: the first answer is still `.pause`.
            if asked == 1 { link.clientSession.resume(stream: id) }
            if asked == 2 { link.client.stream(id).left = 100 }
            if asked == 3 { link.clientSession.reset(stream: id, code: 8) }
            link.client.send(other, 50, ends: false)
        }
        link.client.stream(id).endsWhenSent = false
        link.clientSession.resume(stream: id)
        link.settle()
        #expect(asked == 3)
        #expect(link.server.stream(id).received == 100)
        #expect(link.server.stream(id).closed == 8)
        #expect(link.server.stream(other).received == 150)
    }

    @Test func dataThatCannotBeHadResetsTheStream() throws {
        final class Failing: HTTP2Events {
            override func outgoingData(stream: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
                .fail
            }
        }
        let link = Link()
        let session = HTTP2Session(role: .client, settings: HTTP2Settings(), events: Failing())
        let id = try session.request(connectFields)
        link.upward = drain(session)
        link.deliver(to: link.serverSession)
        #expect(link.server.stream(id).closed == HTTP2ErrorCode.internalError)
        #expect(session.openStreams == 0)
    }

    @Test func requestsStopAtThePeersLimit() throws {
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = 2
        let link = Link(server: settings)
        #expect(link.clientSession.peerMaxConcurrentStreams == 100)
        link.settle()
        #expect(link.clientSession.peerMaxConcurrentStreams == 2)
        let id = try link.clientSession.request(connectFields)
        _ = try link.clientSession.request(connectFields)
        #expect(throws: HTTP2RequestRefusal.tooManyStreams) { try link.clientSession.request(connectFields) }
        link.clientSession.reset(stream: id, code: 8)
        let third = try link.clientSession.request(connectFields)
        link.settle()
        #expect(link.server.stream(third).headers.count == 2)
    }

    @Test func streamsOverTheLimitAreRefusedWhenThePeerAssumedMore() throws {
        var settings = HTTP2Settings()
        settings.maxConcurrentStreams = 2
        let link = Link(server: settings)
        let ids = try (0..<4).map { _ in try link.clientSession.request(connectFields) }
        link.settle()
        #expect(ids.map { link.client.stream($0).closed } == [nil, nil, 7, 7])
        #expect(link.serverSession.openStreams == 2)
    }

    @Test func endWithTheHeadersIsToldToo() throws {
        let link = Link()
        let id = try link.clientSession.request(connectFields)
        link.settle()
        link.serverSession.respond(
            stream: id, headers: [HeaderField(name: ":status", value: "503")], endStream: true)
        link.settle()
        #expect(link.client.stream(id).headers.first?.value == "503")
        #expect(link.client.stream(id).ends == 1 && link.client.stream(id).closed == nil)
    }
}
