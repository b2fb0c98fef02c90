import MeshModel
import MeshRuntime
import Testing

@testable import MeshHTTP

@Suite struct ProxyRoutingTests {
    private static func route(_ rules: [HTTPRoute.Rule]) -> HTTPRoute {
        HTTPRoute(
            name: ObjectName(namespace: "default", name: "route"), parents: [HTTPRoute.Parent(service: World.shop)],
            rules: rules)
    }

    private static func backend(_ service: ObjectName, weight: UInt32 = 1) -> HTTPRoute.Backend {
        HTTPRoute.Backend(service: service, port: 80, weight: weight)
    }

    @Test func aRouteChoosesByPathAndHeader() throws {
        let route = Self.route([
            HTTPRoute.Rule(
                matches: [
                    HTTPRoute.Match(path: .prefix("/v2")), HTTPRoute.Match(headers: [.init(name: "x-v", value: "2")]),
                ],
                backends: [Self.backend(World.second)]),
            HTTPRoute.Rule(matches: [HTTPRoute.Match(path: .exact("/"))], backends: [Self.backend(World.shop)]),
        ])
        let world = try World(routes: [route], server: Peer.echo)
        for request in ["GET /v2/x?y", "GET /", "GET /v20", "GET http://a/v2?z"] {
            _ = world.ask("\(request) HTTP/1.1\r\nhost: a\r\n\r\n")
        }
        _ = world.ask("GET /v20 HTTP/1.1\r\nhost: a\r\nX-V: 2\r\n\r\n")
        #expect(world.records.map(\.backend) == [World.second, World.shop, nil, World.second, World.second])
        #expect(world.records.map(\.status) == [200, 200, 404, 200, 200])
        #expect(world.records[2].reason == .routeNotFound)
        // One connection to each backend, both used again.
        #expect(world.upstreams.dialled == [World.second, World.shop])
        world.finish()
    }

    @Test func aRuleWithoutBackendIsAnInternalError() throws {
        let world = try World(routes: [Self.route([HTTPRoute.Rule(backends: [])])], server: Peer.echo)
        let answer = world.ask(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhiGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        // A body that came along is read and forgotten, so the connection goes on.
        #expect(world.records.map(\.status) == [500, 500] && world.records[0].reason == .noBackend)
        #expect(answer.hasPrefix("HTTP/1.1 500 Internal Server Error\r\nserver: culvert\r\n"))
        #expect(!answer.contains("connection: close"))
        let later = world.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n")
        #expect(later.contains("connection: close") && world.client.hasEnded)
        world.finish()
    }

    @Test func weightsShareTheRequests() throws {
        let rule = HTTPRoute.Rule(backends: [
            Self.backend(World.shop, weight: 70), Self.backend(World.second, weight: 30),
        ])
        let world = try World(routes: [Self.route([rule])], server: Peer.echo)
        for _ in 0..<500 { _ = world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n") }
        let share = world.records.filter { $0.backend == World.second }.count
        #expect((110...190).contains(share), "about 150 of 500")
        world.finish()
    }

    @Test func headerModifiersSetThenAddThenRemove() throws {
        typealias Field = HTTPRoute.HeaderModifier.Field
        let first = HTTPRoute.HeaderModifier(
            set: [Field(name: "x-set", value: "new"), Field(name: "host", value: "other.example")],
            add: [Field(name: "x-add", value: "2"), Field(name: "x-evil", value: "a\r\nb: c")], remove: ["x-gone"])
        let second = HTTPRoute.HeaderModifier(
            set: [Field(name: "connection", value: "x"), Field(name: "content-length", value: "7")],
            add: [Field(name: "x-gone", value: "back")], remove: ["x-forwarded-client-cert", "host"])
        var backend = Self.backend(World.shop)
        backend.requestHeaders = [second]
        let rule = HTTPRoute.Rule(requestHeaders: [first], backends: [backend])
        var seen = ""
        let world = try World(routes: [Self.route([rule])]) { seen = $0.text }
        world.send(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Set: 1\r\nx-set: 2\r\nX-Add: 1\r\nX-Gone: 1\r\nX-Request-Id: i\r\n\r\n")
        #expect(
            seen == "GET / HTTP/1.1\r\nhost: other.example\r\nX-Add: 1\r\nX-Request-Id: i\r\nx-set: new\r\nx-add: 2\r\n"
                + "x-gone: back\r\nx-forwarded-client-cert: By=spiffe://cluster.local/ns/default/sa/waypoint;"
                + "URI=spiffe://cluster.local/ns/default/sa/caller\r\n\r\n")
        world.finish()
    }

    @Test func aHeadThatNoLongerFitsIsRefused() throws {
        let long = String(repeating: "x", count: 40_000)
        let modifier = HTTPRoute.HeaderModifier(add: [.init(name: "x-long", value: long)])
        let rule = HTTPRoute.Rule(requestHeaders: [modifier], backends: [Self.backend(World.shop)])
        let world = try World(routes: [Self.route([rule])], server: Peer.echo)
        #expect(world.ask("GET / HTTP/1.1\r\nhost: a\r\nx: \(long)\r\n\r\n").hasPrefix("HTTP/1.1 431 "))
        #expect(world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").hasPrefix("HTTP/1.1 200 "))
        world.finish()
    }
}

@Suite struct ProxyTunnelTests {
    static let upgrade =
        "GET /chat HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    static let accepted =
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"

    @Test func aWebSocketBecomesATunnelWithHalfClose() throws {
        let world = try World { peer in
            if peer.text.contains("\r\n\r\n") {
                #expect(peer.takeReceived().contains("connection: upgrade\r\nupgrade: websocket\r\n"))
                peer.send(Self.accepted + "first")
                peer.behavior = { $0.send("[\($0.takeReceived())]") }
            }
        }
        #expect(world.ask(Self.upgrade) == Self.accepted + "first")
        #expect(world.ask("ping\r\n\r\n\u{0}") == "[ping\r\n\r\n\u{0}]")
        world.client.finish()
        world.settle()
        #expect(world.servers[0].hasEnded && !world.client.hasEnded)
        world.servers[0].send("bye")
        world.servers[0].finish()
        world.settle()
        #expect(world.client.text.hasSuffix("bye") && world.client.hasEnded)
        let record = world.records[0]
        #expect(record.status == 101 && record.flags == .upgraded && record.bytesReceived == 9)
        world.finish()
    }

    @Test func bytesSentAheadOfTheAnswerGoThroughTheTunnelOnly() throws {
        let world = try World(server: { _ in })
        world.send(Self.upgrade + "early")
        #expect(!world.servers[0].text.contains("early"))
        world.servers[0].send(Self.accepted)
        world.settle()
        #expect(world.servers[0].text.hasSuffix("early"))
        world.client.reset()
        world.settle()
        #expect(world.servers[0].failure == .reset && world.records[0].reason == .downstreamReset)
        world.finish()
    }

    @Test func aRefusedUpgradeIsAnOrdinaryAnswer() throws {
        let world = try World(server: Peer.serving { _, _ in "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" })
        #expect(world.ask(Self.upgrade) == "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        #expect(world.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").hasPrefix("HTTP/1.1 200"))
        world.finish()
    }

    @Test func aQuietTunnelIsClosedInTheEnd() throws {
        let world = try World { $0.send(Self.accepted) }
        world.send(Self.upgrade)
        world.advance(seconds: 301)
        #expect(world.client.failure == .reset && world.records[0].reason == .idleTimeout)
        world.finish()
    }
}
