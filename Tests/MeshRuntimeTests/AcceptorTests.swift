import CMeshAllocations
import Glibc
import MeshRuntime
import Testing

@Suite struct AcceptorTests {
    @Test func aBurstLongerThanATurnsShareIsTakenInSeveralTurns() throws {
        let loopback = try Loopback()
        let clients = try (0..<150).map { _ in try SocketStream.connect(to: loopback.address, on: loopback.core) }
        loopback.core.turn(waitingAtMost: 1_000_000_000)
        #expect(loopback.acceptor.accepted == UInt64(Acceptor.connectionsPerTurn))
        #expect(loopback.turn { loopback.acceptor.accepted == 150 })
        #expect(clients.allSatisfy { $0.isOpen })
        #expect((loopback.acceptor.aborted, loopback.acceptor.rests) == (0, 0))
    }

    @Test func theAcceptedStreamKnowsBothEnds() throws {
        let loopback = try Loopback()
        let (client, server) = try loopback.pair()
        #expect(client.stream.remoteAddress == loopback.address)
        #expect(server.stream.localAddress == loopback.address)
        #expect(server.stream.remoteAddress == client.stream.localAddress)
        #expect(server.stream.remoteAddress.port != 0)
    }

    @Test func mayBeClosedWhileItHandsOutAConnection() throws {
        final class Holder { var acceptor: Acceptor? }
        let core = try Core(index: 0)
        let holder = Holder()
        let acceptor = try Acceptor(listener: Socket.listen(.loopback), on: core) { stream in
            stream.reset()
            holder.acceptor?.close()
            holder.acceptor = nil
        }
        let address = acceptor.localAddress
        holder.acceptor = acceptor
        let clients = try (0..<2).map { _ in Recorded(try SocketStream.connect(to: address, on: core)) }
        for _ in 0..<4 { core.turn(waitingAtMost: 10_000_000) }
        #expect(acceptor.accepted == 1)
        withExtendedLifetime(clients) { #expect(core.registered == 2) }
        #expect(clients.allSatisfy { $0.owner.failures == [.reset] })
    }

    @Test func restsWhenDescriptorsRunOutAndGoesOnWhenThereAreSome() throws {
        try withPrivateDescriptors {
            let loopback = try Loopback(clock: .manual)
            let client = Recorded(try SocketStream.connect(to: loopback.address, on: loopback.core))
            var last: Int32 = -1
            try #require(culvert_exhaust_descriptors(0, &last) > 0)
            for _ in 0..<5 { loopback.core.turn(advancing: 1) }
            #expect((loopback.acceptor.accepted, loopback.acceptor.rests) == (0, 1))
            loopback.core.turn(advancing: Acceptor.restNanoseconds)
            loopback.core.turn(advancing: 1)
            #expect((loopback.acceptor.accepted, loopback.acceptor.rests) == (0, 2))
            close(last)
            loopback.core.turn(advancing: Acceptor.restNanoseconds)
            loopback.core.turn(advancing: 1)
            // The one free descriptor is taken: looking for the next connection runs out again.
            #expect((loopback.acceptor.accepted, loopback.acceptor.rests) == (1, 3))
            #expect(client.owner.writable == 1)
        }
    }

    @Test func nothingIsLeftOpen() throws {
        try withPrivateDescriptors {
            let before = culvert_open_descriptors()
            for round in 0..<50 {
                let loopback = try Loopback(round.isMultiple(of: 2) ? .loopback : .loopback6)
                let (client, server) = try loopback.pair()
                let (dropped, peer) = try loopback.pair()
                #expect(client.write("x") == .wrote(1))
                #expect(loopback.turn { server.read() == .bytes(1) })
                client.stream.reset()
                server.stream.close()
                dropped.stream.owner = nil
                peer.stream.close()
                let address = loopback.address
                loopback.acceptor.close()
                let refused = Recorded(try SocketStream.connect(to: address, on: loopback.core))
                #expect(loopback.turn { refused.owner.failures == [.refused] })
                refused.stream.close()
            }
            #expect(culvert_open_descriptors() == before)
        }
    }
}

@Suite struct SocketTests {
    func option(_ socket: Int32, _ level: Int32, _ name: Int32) -> Int32 {
        var value: Int32 = -1
        var size = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(socket, level, name, &value, &size) == 0 else { return -errno }
        return value
    }

    func expectKeepAliveAndNoDelay(_ socket: Int32) {
        let tcp = Int32(IPPROTO_TCP)
        #expect(option(socket, SOL_SOCKET, SO_KEEPALIVE) == 1)
        #expect(option(socket, tcp, TCP_KEEPIDLE) == 180)
        #expect(option(socket, tcp, TCP_KEEPINTVL) == 180)
        #expect(option(socket, tcp, TCP_KEEPCNT) == 9)
        #expect(option(socket, tcp, TCP_NODELAY) == 1)
    }

    @Test func bothEndsProbeAndDoNotDelay() throws {
        var options = ListenOptions()
        options.mark = 0x539
        let listener = try Socket.listen(.loopback, options: options)
        defer { Socket.close(listener) }
        let address = try Socket.localAddress(of: listener)
        var connectOptions = ConnectOptions()
        connectOptions.mark = 0x111
        let client = try Socket.connect(to: address, options: connectOptions)
        defer { Socket.close(client) }
        expectKeepAliveAndNoDelay(client)
        #expect(option(client, SOL_SOCKET, SO_MARK) == 0x111)
        var waiting = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
        try #require(poll(&waiting, 1, 10_000) == 1)
        // Inherited from the listener: no call of ours sets them on what is accepted.
        let accepted = accept(listener, nil, nil)
        try #require(accepted >= 0)
        defer { Socket.close(accepted) }
        expectKeepAliveAndNoDelay(accepted)
        #expect(option(listener, SOL_SOCKET, SO_MARK) == 0x539)
        #expect(fcntl(client, F_GETFD) == FD_CLOEXEC)
        #expect(fcntl(client, F_GETFL) & O_NONBLOCK != 0)
    }

    @Test func comesFromTheSourceItIsGiven() throws {
        let loopback = try Loopback()
        var options = ConnectOptions()
        options.source = .v4(0x7f00_0909, port: 0)
        let client = Recorded(try SocketStream.connect(to: loopback.address, options: options, on: loopback.core))
        let server = try loopback.nextAccepted()
        #expect(server.remoteAddress.low == 0x7f00_0909)
        #expect(server.remoteAddress.port != 0)
        #expect(client.stream.localAddress == server.remoteAddress)
    }

    @Test func foreignSourceNeedsTransparency() throws {
        // 192.0.2.7 (RFC 5737) and 2001:db8::7 (RFC 3849) are nobody's.
        let sources: [(RawSocketAddress, RawSocketAddress)] = [
            (.v4(0xc000_0207, port: 0), .loopback), (.v6(high: 0x2001_0db8_0000_0000, low: 7, port: 0), .loopback6),
        ]
        for (source, target) in sources {
            let listener = try Socket.listen(target)
            defer { Socket.close(listener) }
            let address = try Socket.localAddress(of: listener)
            var options = ConnectOptions()
            options.source = source
            let error = #expect(throws: SystemError.self) { try Socket.connect(to: address, options: options) }
            #expect(error?.name == "EADDRNOTAVAIL")
            options.transparent = true
            let socket = try Socket.connect(to: address, options: options)
            defer { Socket.close(socket) }
            let local = try Socket.localAddress(of: socket)
            #expect((local.high, local.low) == (source.high, source.low))
        }
        let error = #expect(throws: SystemError.self) {
            var options = ConnectOptions()
            options.source = .loopback6
            _ = try Socket.connect(to: .loopback.with(port: 1), options: options)
        }
        #expect(error?.name == "EAFNOSUPPORT")
    }

    @Test func transparentListenersBindToForeignAddresses() throws {
        var options = ListenOptions()
        for address in [RawSocketAddress.v4(0xc000_0207, port: 0), .v6(high: 0x2001_0db8_0000_0000, low: 7, port: 0)] {
            options.transparent = false
            #expect(throws: SystemError.self) { try Socket.listen(address, options: options) }
            options.transparent = true
            Socket.close(try Socket.listen(address, options: options))
        }
    }

    @Test func onePortCanBeSharedWhenBothAskForIt() throws {
        var options = ListenOptions()
        options.reusePort = true
        let first = try Socket.listen(.loopback, options: options)
        defer { Socket.close(first) }
        let address = try Socket.localAddress(of: first)
        let second = try Socket.listen(address, options: options)
        defer { Socket.close(second) }
        let error = #expect(throws: SystemError.self) { try Socket.listen(address) }
        #expect(error?.description == "bind to port \(address.port): EADDRINUSE (Address already in use)")
    }

    @Test func ipv6AndDualStack() throws {
        let six = try Loopback(.loopback6)
        let (client, server) = try six.pair()
        #expect(client.write("six") == .wrote(3))
        #expect(six.turn { server.read() == .bytes(3) })
        #expect(!server.stream.remoteAddress.isIPv4 && server.stream.remoteAddress.low == 1)

        let both = try Loopback(.v6(high: 0, low: 0, port: 0))
        let (overFour, seenFour) = try both.pair(to: .loopback.with(port: both.address.port))
        #expect(overFour.stream.remoteAddress.isIPv4)
        #expect(seenFour.stream.remoteAddress.isIPv4 && seenFour.stream.remoteAddress.low == 0x7f00_0001)
        #expect(seenFour.stream.localAddress.isIPv4)

        var options = ListenOptions()
        options.dualStack = false
        let only = try Loopback(.v6(high: 0, low: 0, port: 0), options: options)
        let refused = Recorded(try SocketStream.connect(to: .loopback.with(port: only.address.port), on: only.core))
        #expect(only.turn { refused.owner.failures == [.refused] })
    }
}

@Suite struct SystemErrorTests {
    @Test func saysOperationNameAndText() {
        let error = SystemError(code: ECONNREFUSED, operation: "connect")
        #expect(error.description == "connect: ECONNREFUSED (Connection refused)")
        #expect(SystemError(code: 9999, operation: "x").description == "x: errno 9999 (unknown error)")
    }

    /// Also that the numbers this module decides by are the platform's.
    @Test(arguments: [
        (ECONNRESET, StreamFailure.reset), (EPIPE, .reset), (ECONNABORTED, .reset), (ETIMEDOUT, .timedOut),
        (ECONNREFUSED, .refused), (ENETUNREACH, .unreachable), (EHOSTUNREACH, .unreachable),
        (ENETDOWN, .unreachable), (EHOSTDOWN, .unreachable), (EPERM, .system(EPERM)),
    ])
    func errnosBecomeFailures(code: Int32, failure: StreamFailure) {
        #expect(StreamFailure(errno: code) == failure)
    }

    @Test func mappedAddressesAreIPv4() {
        let mapped = RawSocketAddress.v6(high: 0, low: 0xffff_7f00_0001, port: 80)
        #expect(mapped == .v4(0x7f00_0001, port: 80))
        #expect(mapped.isIPv4 && mapped.low == 0x7f00_0001)
        #expect(!RawSocketAddress.v6(high: 1, low: 0xffff_7f00_0001, port: 80).isIPv4)
    }

    @Test func limitOfOpenFilesIsRaisedAndNeverLowered() throws {
        let before = try OpenFiles.raiseLimit(to: 1)
        let after = try OpenFiles.raiseLimit()
        #expect(after >= before && before > 1)
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(7), &limit)
        #expect(limit.rlim_cur == after)
        #expect(limit.rlim_cur == limit.rlim_max)
    }
}
