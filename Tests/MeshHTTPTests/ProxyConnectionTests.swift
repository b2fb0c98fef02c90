import MeshModel
import MeshRuntime
import Testing

@testable import MeshHTTP

@Suite struct ProxyConnectionTests {
    @Test func aRequestIsForwardedWithWhatWeKnow() throws {
        var seen = ""
        let world = try World { peer in
            seen = peer.takeReceived()
            peer.send("HTTP/1.1 200 Fine\r\nServer: nginx\r\nKeep-Alive: timeout=5\r\ncontent-length: 2\r\n\r\nok")
        }
        let answer = world.ask(
            "GET /a?b HTTP/1.1\r\nUser-Agent: curl\r\nHost: shop\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n"
                + "TE: trailers\r\nX-Forwarded-Client-Cert: URI=spiffe://evil\r\nUpgrade: h2c\r\n\r\n")
        #expect(answer == "HTTP/1.1 200 Fine\r\nServer: nginx\r\ncontent-length: 2\r\n\r\nok")
        let identifier = "x-request-id: "
        let position = seen.range(of: identifier)
        let head = String(seen[..<position])
        #expect(
            head == "GET /a?b HTTP/1.1\r\nhost: shop\r\nUser-Agent: curl\r\n"
                + "x-forwarded-client-cert: By=spiffe://cluster.local/ns/default/sa/waypoint;"
                + "URI=spiffe://cluster.local/ns/default/sa/caller\r\n")
        let uuid = seen[position...].dropFirst(identifier.count).prefix(36)
        #expect(uuid.split(separator: "-").map(\.count) == [8, 4, 4, 4, 12])
        #expect(Array(uuid)[14] == "4")
        #expect(world.core.buffers.leased == 0, "an idle connection holds no buffer")

        let record = try #require(world.records.first)
        #expect(record.method == "GET" && record.path == "/a" && record.host == "shop" && record.status == 200)
        #expect(record.backend == World.shop && record.backendPort == 80 && record.bytesSent == 2)
        #expect(record.reason == .none && record.flags == [])
        world.finish()
    }

    @Test func aPlaintextCallerHasNoCertificateField() throws {
        var seen = ""
        let world = try World(caller: nil) { seen = $0.text }
        world.send("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-client-cert: URI=x\r\nX-Request-ID: mine\r\n\r\n")
        #expect(seen == "GET / HTTP/1.1\r\nhost: a\r\nX-Request-ID: mine\r\n\r\n")
        world.finish()
    }

    @Test func theUpstreamConnectionIsUsedAgain() throws {
        let world = try World(server: Peer.echo)
        for number in 0..<3 {
            #expect(world.ask("GET /\(number) HTTP/1.1\r\nhost: a\r\n\r\n").hasSuffix("GET /\(number) HTTP/1.1 "))
        }
        #expect(world.servers.count == 1)
        #expect(world.records.map(\.flags) == [[], .reusedUpstream, .reusedUpstream])
        world.finish()
    }

    @Test func smallMessagesLeaveInOneWrite() throws {
        let world = try World(server: Peer.echo)
        _ = world.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello")
        #expect(world.client.stream.peer?.writes == 1 && world.servers[0].stream.peer?.writes == 1)
        world.finish()
    }

    @Test func aNewConfigurationMeansANewUpstreamConnection() throws {
        let world = try World(server: Peer.echo)
        _ = world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        world.upstreams.current = MeshSnapshot(generation: 2, services: world.upstreams.current.services)
        _ = world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        #expect(world.servers.count == 2 && world.servers[0].hasEnded)
        world.finish()
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() throws {
        let world = try World(server: Peer.echo)
        let requests = (0..<20).map { "POST /\($0) HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx" }.joined()
        var answers = [UInt8](world.ask(requests))
        for number in 0..<20 {
            #expect(Message.take(from: &answers)?.body.text == "POST /\(number) HTTP/1.1 x")
        }
        #expect(answers.isEmpty)
        world.finish()
    }

    @Test func absoluteFormBecomesOriginForm() throws {
        var seen = ""
        let world = try World { seen = $0.text }
        world.send("GET http://shop.example?q HTTP/1.1\r\nHost: other\r\n\r\n")
        #expect(seen.hasPrefix("GET /?q HTTP/1.1\r\nhost: shop.example\r\n"))
        world.finish()
    }

    @Test(arguments: [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ])
    func responsesWithoutBodyEndAtTheirHead(method: String, response: String) throws {
        let world = try World(server: Peer.serving { _, _ in response })
        #expect(world.ask("\(method) / HTTP/1.1\r\nhost: a\r\n\r\n") == response)
        #expect(world.ask("\(method) / HTTP/1.1\r\nhost: a\r\n\r\n") == response)
        #expect(world.servers.count == 1)
        world.finish()
    }

    @Test func expectContinueGoesEndToEnd() throws {
        let world = try World { peer in
            if peer.text.hasSuffix("\r\n\r\n") { peer.send("HTTP/1.1 100 Continue\r\n\r\n") }
            if peer.text.hasSuffix("hello") { peer.send("HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n") }
        }
        let head = "PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        #expect(world.ask(head) == "HTTP/1.1 100 Continue\r\n\r\n")
        #expect(world.ask("hello") == "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")
        #expect(world.servers[0].text.contains("expect: 100-continue"))
        world.finish()
    }

    @Test func anEarlyAnswerReachesTheClientAndClosesInOrder() throws {
        let world = try World { peer in
            if peer.text.contains("\r\n\r\n") { peer.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno") }
            peer.behavior = { _ in }
        }
        let answer = world.ask("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nsome")
        #expect(answer == "HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        #expect(world.client.hasEnded && world.client.failure == nil)
        #expect(world.servers[0].failure == .reset)
        #expect(world.records[0].flags == .earlyResponse && world.records[0].status == 413)
        // The client may go on for a moment without being reset.
        world.send(String(repeating: "x", count: 5000))
        #expect(world.client.failure == nil)
        world.finish()
    }

    @Test func interimResponsesPassOnlyToCurrentClients() throws {
        let answer = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        let world = try World(server: Peer.serving { _, _ in answer })
        #expect(world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n") == answer)
        let old = world.ask("GET / HTTP/1.0\r\nhost: a\r\n\r\n")
        #expect(old == "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        world.finish()
    }

    @Test func endlessInterimResponsesAreCutOff() throws {
        let world = try World(
            server: Peer.serving { _, _ in String(repeating: "HTTP/1.1 102 P\r\n\r\n", count: 40) })
        #expect(world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").contains("HTTP/1.1 502 Bad Gateway"))
        world.finish()
    }

    @Test func aClientOfHTTPOneZeroGetsBareContent() throws {
        let world = try World(
            server: Peer.serving { request, _ in
                request.start.contains("/keep")
                    ? "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                    : "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            })
        let kept = world.ask("GET /keep HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        #expect(kept == "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok")
        let bare = world.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        #expect(bare == "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello")
        #expect(world.client.hasEnded)
        world.finish()
    }

    @Test func aResponseUntilCloseClosesTheClientToo() throws {
        let world = try World { peer in
            peer.send("HTTP/1.1 200 OK\r\n\r\neverything")
            peer.finish()
        }
        #expect(
            world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                == "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\neverything")
        #expect(world.client.hasEnded && world.client.failure == nil)
        world.finish()
    }

    @Test func bodiesStreamBothWaysInBoundedMemory() throws {
        let size = 3_000_000
        let world = try World(capacity: 100_000) { peer in
            if peer.text.contains("\r\n\r\n") {
                peer.send("HTTP/1.1 200 OK\r\ncontent-length: \(size)\r\n\r\n")
                peer.send([UInt8](repeating: 0x61, count: size))
                peer.isReading = false
            }
        }
        world.client.isReading = false
        world.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \(size)\r\n\r\n")
        world.client.send([UInt8](repeating: 0x62, count: size))
        world.settle()
        #expect(world.core.buffers.leased <= 4, "nobody reads: at most two blocks a side wait")
        world.client.isReading = true
        world.settle()
        #expect(world.client.received.count > size)
        world.finish()
    }

    @Test func chunkedBodiesPassAndAreMadeCanonical() throws {
        let world = try World(
            server: Peer.serving { request, _ in
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                    + "00\(String(request.body.count, radix: 16));x=y\r\n\(request.body.text)\r\n0\r\nx-sum: 1\r\n\r\n"
            })
        let answer = world.ask(
            "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n02\r\nde\r\n0\r\nhost: x\r\n\r\n"
        )
        #expect(
            answer == "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nx-sum: 1\r\n\r\n")
        #expect(world.records[0].bytesReceived == 5 && world.records[0].bytesSent == 5)
        world.finish()
    }
}

extension String {
    /// Where `text` first occurs; the end where it does not.
    func range(of text: String) -> String.Index {
        var index = startIndex
        while index < endIndex, !self[index...].hasPrefix(text) { index = self.index(after: index) }
        return index
    }
}
