import Glibc
import MeshRuntime
import Testing

@Suite struct SocketStreamTests {
    @Test func oneWouldBlockReadAndOneEdgeMakeOneCall() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        loopback.settle()
        #expect(client.owner.readable == 0)
        #expect(client.read() == .wouldBlock)
        #expect(server.write("one") == .wrote(3))
        #expect(loopback.turn { client.owner.readable > 0 })
        #expect(server.write("two") == .wrote(3))
        loopback.settle()
        #expect(client.owner.readable == 1)
        #expect(client.readText() == ("onetwo", .wouldBlock))
        #expect(server.write("three") == .wrote(5))
        #expect(loopback.turn { client.owner.readable == 2 })
        #expect(client.owner.failures.isEmpty)
    }

    @Test func bytesThatComeWhileNobodyWaitsAreNotLost() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(server.write("early") == .wrote(5))
        loopback.settle()
        #expect(client.owner.readable == 0)
        #expect(client.readText() == ("early", .wouldBlock))
        #expect(server.write("late") == .wrote(4))
        server.stream.finishWriting()
        #expect(loopback.turn { client.owner.readable == 1 })
        #expect(client.readText() == ("late", .endOfStream))
        #expect(client.read() == .endOfStream)
    }

    /// A short read must not hide a FIN that came with the bytes.
    @Test func endBehindAShortReadIsSeen() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        loopback.settle()
        #expect(server.write("last") == .wrote(4))
        server.stream.close()
        #expect(client.read() == .bytes(4))
        let next = client.read()
        #expect(next == .endOfStream || next == .wouldBlock)
        if next == .wouldBlock { #expect(loopback.turn { client.owner.readable == 1 }) }
        #expect(client.read() == .endOfStream)
    }

    @Test func writerIsToldOnceWhenThereIsRoomAgain() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        let taken = client.fill()
        #expect(taken > 0)
        loopback.settle()
        #expect(client.owner.writable == 0)
        #expect(client.write("x") == .wouldBlock)
        var drained = 0
        #expect(
            loopback.turn {
                while case .bytes(let count) = server.read(65536) { drained += count }
                return drained == taken
            })
        #expect(loopback.turn { client.owner.writable > 0 })
        loopback.settle()
        #expect(client.owner.writable == 1)
        #expect(client.write("x") == .wrote(1))
    }

    @Test func eachDirectionEndsByItself() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(client.write("question") == .wrote(8))
        client.stream.finishWriting()
        #expect(loopback.turn { server.stream.isOpen && server.readText().end == .endOfStream })
        #expect(server.write("answer") == .wrote(6))
        var heard = ""
        #expect(
            loopback.turn {
                heard += client.readText().text
                return heard == "answer"
            })
        #expect(client.read() == .wouldBlock)
        server.stream.finishWriting()
        #expect(loopback.turn { client.read() == .endOfStream })
        // Both ends closed is no failure.
        loopback.settle()
        #expect(client.owner.failures.isEmpty && server.owner.failures.isEmpty)
        #expect(!client.stream.peerHasReset && !server.stream.peerHasReset)
    }

    @Test func resetReachesAReader() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(client.read() == .wouldBlock)
        var seen: ReadResult?
        client.owner.reaction = { _ in seen = client.read() }
        server.stream.reset()
        #expect(loopback.turn { seen == .failed(.reset) })
        loopback.settle()
        #expect(client.owner.readable == 1)
        #expect(client.owner.failures.isEmpty)
        #expect(client.read() == .failed(.reset))
        #expect(client.write("x") == .failed(.reset))
        client.owner.reaction = nil
    }

    /// What the kernel does to the descriptors of a process that was killed.
    @Test(arguments: [true, false])
    func aDescriptorThatIsJustClosedIsAnAbort(ofTheAcceptedSide: Bool) throws {
        func ready(_ descriptor: Int32) -> Bool {
            var wanted = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&wanted, 1, 10_000) == 1
        }
        let listener = try Socket.listen(.loopback)
        defer { Socket.close(listener) }
        let client = try Socket.connect(to: try Socket.localAddress(of: listener))
        #expect(ready(listener))
        let accepted = accept(listener, nil, nil)
        try #require(accepted >= 0)
        let (killed, other) = ofTheAcceptedSide ? (accepted, client) : (client, accepted)
        defer { Glibc.close(other) }
        #expect(send(killed, "half", 4, 0) == 4)
        #expect(ready(other))
        Glibc.close(killed)
        var bytes = [UInt8](repeating: 0, count: 16)
        #expect(recv(other, &bytes, 16, 0) == 4)
        #expect(ready(other) && recv(other, &bytes, 16, 0) == -1 && errno == ECONNRESET)
    }

    @Test func resetReachesAnOwnerThatIsNotReadingAndKeepsWhatCameBefore() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(server.write("before") == .wrote(6))
        loopback.settle()
        #expect(!client.stream.peerHasReset)
        server.stream.reset()
        #expect(loopback.turn { client.owner.failures == [.reset] })
        #expect(client.stream.peerHasReset)
        loopback.settle()
        #expect(client.owner.failures == [.reset])
        #expect(client.owner.readable == 0)
        #expect(client.readText() == ("before", .failed(.reset)))
        #expect(client.write("x") == .failed(.reset))
        client.stream.close()
    }

    /// A paused relay that is owed a call hears it, does not read, and must learn of the reset all the same.
    @Test func resetReachesAnOwnerThatIsArmedButDoesNotReadWhenCalled() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(client.read() == .wouldBlock)
        server.stream.reset()
        #expect(loopback.turn { client.owner.failures == [.reset] })
        #expect(client.owner.readable == 1)
    }

    @Test func resetAfterTheEndOfOneDirectionIsSeen() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        server.stream.finishWriting()
        #expect(loopback.turn { client.read() == .endOfStream })
        server.stream.reset()
        #expect(loopback.turn { client.owner.failures == [.reset] })
        #expect(client.write("x") == .failed(.reset))
    }

    @Test func closeDeliversWhatWasWrittenThoughBytesWereLeftUnread() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(client.write(String(repeating: "q", count: 50_000)) == .wrote(50_000))
        loopback.settle()
        #expect(server.read(10) == .bytes(10))
        #expect(server.write("400 go away") == .wrote(11))
        server.stream.close()
        loopback.settle()
        let heard = client.readText()
        #expect(heard == ("400 go away", .endOfStream))
    }

    @Test func refusedConnectionFailsOnce() throws {
        let loopback = try Loopback()
        let address = loopback.address
        loopback.acceptor.close()
        let client = Recorded(try SocketStream.connect(to: address, on: loopback.core))
        #expect(client.stream.isConnecting)
        #expect(client.read() == .wouldBlock)
        #expect(client.write("x") == .wouldBlock)
        #expect(loopback.turn { !client.owner.failures.isEmpty })
        loopback.settle()
        #expect(client.owner.failures == [.refused])
        #expect((client.owner.readable, client.owner.writable) == (0, 0))
        #expect(client.read() == .failed(.refused))
    }

    @Test func connectionThatNobodyAnswersIsLeftToTimers() throws {
        var options = ListenOptions()
        options.backlog = 0
        let loopback = try Loopback(options: options)
        // The backlog is full after one; Linux drops further SYNs without a word.
        let silent = try Core(index: 1)
        let clients = try (0..<4).map { _ in Recorded(try SocketStream.connect(to: loopback.address, on: silent)) }
        final class GiveUp: Timer {
            var stream: SocketStream?
            override func fire() {
                stream?.reset()
                stream = nil
            }
        }
        let last = try #require(clients.last)
        let timer = GiveUp()
        timer.stream = last.stream
        silent.schedule(timer, after: 20_000_000)
        while timer.isArmed { silent.turn(waitingAtMost: .max) }
        #expect(last.owner.writable == 0 && last.owner.failures.isEmpty)
        #expect(!last.stream.isOpen && last.stream.owner == nil)
        #expect(clients[0].owner.writable == 1)
    }

    @Test func finishingBeforeTheConnectionStandsFinishesOnceItDoes() throws {
        let loopback = try Loopback()
        let client = Recorded(try SocketStream.connect(to: loopback.address, on: loopback.core))
        client.stream.finishWriting()
        let server = Recorded(try loopback.nextAccepted())
        #expect(loopback.turn { server.read() == .endOfStream })
        #expect(client.owner.failures.isEmpty)
    }

    @Test func twoBuffersTakeOneCallEachWay() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        let result = [UInt8]("head".utf8).withUnsafeBytes { head in
            [UInt8]("body!".utf8).withUnsafeBytes { client.stream.write(head, $0) }
        }
        #expect(result == .wrote(9))
        var first = [UInt8](repeating: 0, count: 6)
        var second = [UInt8](repeating: 0, count: 6)
        #expect(loopback.turn { server.read(1) == .bytes(1) })
        let read = first.withUnsafeMutableBytes { first in
            second.withUnsafeMutableBytes { server.stream.read(into: first, $0) }
        }
        #expect(read == .bytes(8))
        #expect(String(decoding: first + second[..<2], as: UTF8.self) == "eadbody!")
    }

    @Test func streamsMayBeClosedFromTheirOwnCalls() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(client.read() == .wouldBlock)
        #expect(client.fill() > 0)
        client.owner.reaction = { $0.close() }
        server.stream.reset()
        #expect(loopback.turn { client.owner.readable == 1 })
        loopback.settle()
        // Armed both ways and broken, and yet nothing more after the close.
        #expect(client.owner.writable == 0 && client.owner.failures.isEmpty)
        #expect(client.stream.owner == nil && !client.stream.isOpen)
        client.stream.close()
        client.stream.reset()
        #expect(client.read() == .failed(.reset))
    }

    @Test func eventOfAStreamClosedInTheSameBatchReachesNobody() throws {
        let loopback = try Loopback()
        let core = loopback.core
        let first = try loopback.pair()
        let second = try loopback.pair()
        #expect(first.client.read() == .wouldBlock)
        #expect(second.client.read() == .wouldBlock)
        #expect(first.server.write("x") == .wrote(1))
        #expect(second.server.write("x") == .wrote(1))
        var newcomer: Recorded?
        let address = loopback.address
        func replace(_ other: SocketStream) -> (ByteStream) -> Void {
            { _ in
                other.close()
                // Takes the slot, and where no other thread interferes the descriptor, that were just given up.
                newcomer = (try? SocketStream.connect(to: address, on: core)).map(Recorded.init)
            }
        }
        first.client.owner.reaction = replace(second.client.stream)
        second.client.owner.reaction = replace(first.client.stream)
        let registered = core.registered
        core.turn(waitingAtMost: 1_000_000_000)
        #expect(first.client.owner.readable + second.client.owner.readable == 1)
        #expect(core.staleEvents == 1)
        #expect(core.registered == registered)
        let stranger = try #require(newcomer)
        #expect(stranger.owner.readable == 0 && stranger.owner.failures.isEmpty)
        #expect(loopback.turn { stranger.owner.writable == 1 })
    }

    @Test func descriptorThatCannotBeWatchedFailsAtTheEndOfTheTurn() throws {
        let core = try Core(index: 0)
        // epoll refuses regular files with EPERM, as it may refuse a socket for want of memory or watches.
        let file = open("/etc/hostname", O_RDONLY | O_CLOEXEC)
        try #require(file >= 0)
        let stream = Recorded(SocketStream(adopting: file, on: core, connecting: true))
        core.turn(waitingAtMost: .max)
        #expect(stream.owner.failures == [.system(EPERM)])
        #expect(stream.write("x") == .failed(.system(EPERM)))
        #expect(core.registered == 0)
        stream.stream.close()
        #expect(!stream.stream.isOpen)
    }

    @Test func droppedStreamsLeaveTheCore() throws {
        let loopback = try Loopback()
        let before = loopback.core.registered
        do {
            let (client, server) = try loopback.pair()
            #expect(loopback.core.registered == before + 2)
            client.stream.owner = nil
            server.stream.owner = nil
        }
        #expect(loopback.core.registered == before)
    }
}
