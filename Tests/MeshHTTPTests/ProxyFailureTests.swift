import MeshModel
import MeshRuntime
import Testing

@testable import MeshHTTP

@Suite struct ProxyFailureTests {
    static let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    static let ok = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    private func status(_ text: String) -> Int? { Int(text.dropFirst(9).prefix(3)) }

    @Test(arguments: SmugglingTests.framing + SmugglingTests.startLines)
    func aMalformedRequestIsAnsweredAndNothingIsDialled(_ vector: Vector) throws {
        let world = try World(server: Peer.echo)
        let answer = world.ask(vector.text + "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
        #expect(status(answer) == vector.error.requestStatus)
        #expect(answer.contains("server: culvert\r\n") && answer.contains("connection: close\r\n"))
        #expect(!answer.contains("smuggled"))
        #expect(world.upstreams.dialled.isEmpty && world.client.hasEnded && world.records.count == 1)
        #expect(world.records[0].flags == .local)
        world.finish()
    }

    @Test func aMalformedChunkIsNeverAWholeRequest() throws {
        let world = try World { _ in }
        let answer = world.ask(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n0\r\n\r\n")
        #expect(status(answer) == 400)
        #expect(world.servers[0].failure == .reset && !world.servers[0].text.contains("0\r\n\r\n"))
        #expect(world.records[0].reason == .badRequest)
        world.finish()
    }

    @Test func aRequestCutOffByItsClientIsReset() throws {
        let world = try World { _ in }
        world.client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhell")
        world.client.finish()
        world.settle()
        #expect(status(world.client.text) == 400 && world.servers[0].failure == .reset)
        world.finish()
    }

    @Test(arguments: [
        (Reason.noHealthyUpstream, 503), (.upstreamConnectFailed, 503), (.upstreamRefused, 503),
        (.upstreamConnectTimeout, 504), (.policyDeny, 403), (.unknownPort, 500), (.peerIdentity, 502),
    ])
    func aFailedDialIsAnswered(reason: Reason, expected: Int) throws {
        let world = try World(server: Peer.echo)
        world.upstreams.dialing = .fails(reason)
        let answer = world.ask(Self.get)
        #expect(status(answer) == expected && answer.hasSuffix("\r\n\r\n\(reason.rawValue)\n"))
        #expect(world.records[0].reason == reason && world.records[0].status == expected)
        // The connection goes on.
        world.upstreams.dialing = .immediate
        #expect(status(world.ask(Self.get)) == 200)
        world.finish()
    }

    @Test func aDialMayTakeItsTimeAndIsCancelledWithItsClient() throws {
        let world = try World(server: Peer.echo)
        world.upstreams.dialing = .manual
        #expect(world.ask(Self.get) == "")
        world.upstreams.completeDial()
        world.settle()
        #expect(status(world.client.takeReceived()) == 200)
        _ = world.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        world.finish()

        let gone = try World(server: Peer.echo)
        gone.upstreams.dialing = .manual
        _ = gone.ask(Self.get)
        gone.client.reset()
        gone.settle()
        #expect(gone.upstreams.cancelled == 1 && gone.records.map(\.reason) == [.downstreamReset])
        gone.finish()
    }

    @Test func anIdleConnectionThatDiedIsReplacedOnce() throws {
        let world = try World { peer in
            // Answers one request and aborts at the second, as a server does whose idle time is just over.
            guard peer.text.contains("/second") else {
                return Message.take(from: &peer.received) == nil ? () : peer.send(Self.ok)
            }
            peer.reset()
        }
        #expect(status(world.ask(Self.get)) == 200)
        let answer = world.ask("GET /second HTTP/1.1\r\nhost: a\r\n\r\n")
        #expect(status(answer) == 502 && world.servers.count == 2)
        #expect(world.records[1].flags == [.reusedUpstream, .retried, .local])
        world.finish()
    }

    @Test func aRetriedRequestIsTheSameRequest() throws {
        var requests: [String] = []
        let world = try World { peer in
            requests.append(peer.text)
            if requests.count == 2 { return peer.reset() }
            peer.received = []
            peer.send(Self.ok)
        }
        _ = world.ask(Self.get)
        #expect(status(world.ask("GET /second HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n")) == 200)
        #expect(requests.count == 3 && requests[1] == requests[2])
        world.finish()
    }

    @Test(arguments: ["POST / HTTP/1.1\r\nhost: a\r\n\r\n", "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx"])
    func whatIsNotRepeatableIsNotRepeated(request: String) throws {
        var count = 0
        let world = try World { peer in
            count += 1
            if count == 2 { return peer.reset() }
            peer.received = []
            peer.send(Self.ok)
        }
        _ = world.ask(Self.get)
        #expect(status(world.ask(request)) == 502)
        #expect(world.servers.count == 1 && world.records[1].reason == .upstreamReset)
        world.finish()
    }

    @Test func anIdleConnectionTheServerClosedIsNotUsed() throws {
        let world = try World(server: Peer.echo)
        _ = world.ask(Self.get)
        world.servers[0].finish()
        world.settle()
        #expect(world.servers[0].hasEnded)
        #expect(status(world.ask("POST / HTTP/1.1\r\nhost: a\r\n\r\n")) == 200)
        #expect(world.servers.count == 2)
        world.finish()
    }

    @Test func bytesNobodyAskedForEndTheUpstreamConnection() throws {
        let world = try World(server: Peer.serving { _, _ in Self.ok + "HTTP/1.1 200 OK\r\n\r\nevil" })
        #expect(world.ask(Self.get) == Self.ok)
        #expect(world.ask(Self.get) == Self.ok)
        #expect(world.servers.count == 2)
        world.finish()
    }

    @Test(arguments: [
        "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "HTTP/1.1 200 OK\nx: y\n\n",
    ])
    func aMalformedResponseIsABadGateway(response: String) throws {
        let world = try World(server: Peer.serving { _, _ in response })
        #expect(status(world.ask(Self.get)) == 502)
        #expect(world.records[0].reason == .protocolError && world.servers[0].failure == .reset)
        world.finish()
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ])
    func aTruncatedResponseIsAResetNotAnEnd(response: String) throws {
        let world = try World { peer in
            peer.send(response)
            peer.finish()
            peer.behavior = { _ in }
        }
        world.send(Self.get)
        #expect(world.client.failure == .reset && !world.client.hasEnded)
        #expect(world.records[0].flags.contains(.incomplete))
        world.finish()
    }

    @Test func aServerThatClosesWithoutAWordIsABadGateway() throws {
        let world = try World { $0.close() }
        #expect(status(world.ask(Self.get)) == 502)
        #expect(world.records[0].reason == .upstreamReset)
        world.finish()
    }

    @Test func aClientThatLeavesTakesItsRequestAlong() throws {
        let world = try World { _ in }
        world.send(Self.get)
        world.client.reset()
        world.settle()
        #expect(world.servers[0].failure == .reset && world.records.map(\.reason) == [.downstreamReset])
        world.finish()
    }

    // MARK: Time

    @Test func aSlowHeadTimesOut() throws {
        let world = try World(server: Peer.echo)
        world.send("GET / HTTP/1.1\r\nhost")
        world.advance(seconds: 5)
        world.send(": a\r\nx")
        world.advance(seconds: 5.1)
        #expect(status(world.client.text) == 408 && world.client.hasEnded)
        #expect(world.records[0].reason == .requestTimeout)
        world.finish()
    }

    @Test func anIdleConnectionIsClosedWithoutAWord() throws {
        let world = try World(server: Peer.echo)
        world.advance(seconds: 299)
        _ = world.ask(Self.get)
        world.advance(seconds: 299)
        #expect(!world.client.hasEnded)
        world.advance(seconds: 2)
        #expect(world.client.hasEnded && world.client.text == "")
        world.finish()
    }

    @Test func aServerThatNeverAnswersTimesOut() throws {
        let world = try World { _ in }
        world.send(Self.get)
        world.advance(seconds: 301)
        #expect(status(world.client.text) == 504 && world.records[0].reason == .idleTimeout)
        world.finish()
    }

    @Test func aClientThatNeverSendsItsBodyTimesOut() throws {
        let world = try World { _ in }
        world.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhell")
        world.advance(seconds: 301)
        #expect(status(world.client.text) == 408 && world.records[0].reason == .requestTimeout)
        world.finish()
    }

    @Test func aResponseThatStopsIsReset() throws {
        let world = try World(server: Peer.serving { _, _ in "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf" })
        world.send(Self.get)
        world.advance(seconds: 301)
        #expect(world.client.failure == .reset && world.records[0].reason == .idleTimeout)
        world.finish()
    }

    @Test func aClientThatNeverClosesIsNotWaitedFor() throws {
        let world = try World(server: Peer.echo)
        _ = world.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        #expect(world.upstreams.closedConnections == 0)
        world.advance(seconds: 2.1)
        #expect(world.upstreams.closedConnections == 1)
        world.finish()
    }

    // MARK: Drain

    @Test func drainClosesAnIdleConnectionAtOnce() throws {
        let world = try World(server: Peer.echo)
        _ = world.ask(Self.get)
        world.connection.drain()
        world.settle()
        #expect(world.client.hasEnded && world.servers[0].hasEnded)
        world.finish()
    }

    @Test func drainLetsARequestFinishAndSaysClose() throws {
        let world = try World { _ in }
        world.send(Self.get)
        #expect(world.connection.isBusy)
        world.connection.drain()
        world.servers[0].send(Self.ok)
        world.settle()
        #expect(world.client.text == "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        #expect(world.client.hasEnded)
        world.finish()
    }

    @Test func abortIsAResetBothWays() throws {
        let world = try World { _ in }
        world.send(Self.get)
        world.connection.abort(.policyChanged)
        world.settle()
        #expect(world.client.failure == .reset && world.servers[0].failure == .reset)
        #expect(world.records.map(\.reason) == [.policyChanged])
        world.finish()
    }
}
