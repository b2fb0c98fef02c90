import MeshModel
import MeshRuntime
import Testing

@testable import MeshHTTP

/// Whole conversations under random splitting, small windows and faults. The seed names the conversation.
@Suite struct ProxyRandomTests {
    private struct Exchange {
        var request: [UInt8]
        var body: [UInt8]
    }

    private func body(_ chance: inout Chance, upTo limit: Int) -> [UInt8] {
        let count = Bool.random(using: &chance) ? Int.random(in: 0...limit, using: &chance) : Int(chance.next() % 20)
        return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &chance) }
    }

    private static func chunks(_ body: [UInt8], _ chance: inout Chance) -> [UInt8] {
        var rest = body[...]
        var bytes: [UInt8] = []
        while !rest.isEmpty {
            let count = Int.random(in: 1...rest.count, using: &chance)
            let extras = ["", ";x", " ;y=\"z\""].randomElement(using: &chance) ?? ""
            bytes +=
                [UInt8](["", "0"].randomElement(using: &chance) ?? "") + [UInt8](String(count, radix: 16) + extras)
            bytes += [13, 10] + rest.prefix(count) + [13, 10]
            rest = rest.dropFirst(count)
        }
        return bytes + [UInt8]("0\r\n\(Bool.random(using: &chance) ? "x-t: 1\r\n" : "")\r\n")
    }

    private static func message(_ start: String, _ body: [UInt8], _ chance: inout Chance) -> [UInt8] {
        if Bool.random(using: &chance) {
            return [UInt8]("\(start)Content-Length: \(body.count)\r\n\r\n") + body
        }
        return [UInt8]("\(start)Transfer-Encoding: chunked\r\n\r\n") + chunks(body, &chance)
    }

    @Test(arguments: UInt64(1)...24)
    func everyRequestGetsItsOwnAnswer(seed: UInt64) throws {
        var chance = Chance(seed: seed)
        var serverChance = Chance(seed: seed &* 77)
        let interim = Bool.random(using: &chance)
        let world = try World(
            seed: seed, piece: [1, 7, 100, 5000].randomElement(using: &chance) ?? 1,
            capacity: [3, 50, 70_000].randomElement(using: &chance) ?? 3
        ) { peer in
            while let request = Message.take(from: &peer.received) {
                if interim { peer.send("HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n") }
                let tag = request.start.split(separator: " ")[1]
                peer.send(Self.message("HTTP/1.1 200 OK\r\nX-Tag: \(tag)\r\n", request.body.reversed(), &serverChance))
            }
        }
        let exchanges = (0..<6).map { number in
            let body = body(&chance, upTo: world.network.largestPiece == 1 ? 300 : 3000)
            return Exchange(
                request: Self.message("PUT /\(number) HTTP/1.1\r\nHost: a\r\n", body, &chance), body: body)
        }
        for exchange in exchanges {
            world.client.send(exchange.request)
            if Bool.random(using: &chance) { world.settle() }
        }
        world.settle()
        for (number, exchange) in exchanges.enumerated() {
            var answer = Message.take(from: &world.client.received)
            if interim {
                #expect(answer?.start == "HTTP/1.1 103 Hints", "seed \(seed)")
                answer = Message.take(from: &world.client.received)
            }
            #expect(answer?["x-tag"] == "/\(number)" && answer?.body == exchange.body.reversed(), "seed \(seed)")
        }
        #expect(world.client.received.isEmpty && world.servers.count == 1, "seed \(seed)")
        #expect(world.core.buffers.leased == 0, "seed \(seed)")
        world.finish()
    }

    /// Whatever either side sends, nothing traps, hangs or leaks.
    @Test(arguments: UInt64(1)...20)
    func garbageAndFaultsLeaveNothingBehind(seed: UInt64) throws {
        var chance = Chance(seed: seed)
        var serverChance = Chance(seed: seed &* 99)
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "HTTP/1.1 200 OK\r\n\r\nuntil close",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n", ProxyTunnelTests.accepted,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 304 Not\r\ncontent-length: 5\r\n\r\n",
        ]
        let requests = [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n", ProxyTunnelTests.upgrade, "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            "HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        ]
        for _ in 0..<12 {
            let world = try World(
                seed: chance.next(), piece: [1, 20, 1000].randomElement(using: &chance) ?? 1,
                capacity: [3, 1000].randomElement(using: &chance) ?? 3
            ) { peer in
                switch UInt8.random(in: 0..<10, using: &serverChance) {
                case 0: peer.reset()
                case 1: peer.close()
                case 2: peer.finish()
                case 3: break
                default: peer.send(Self.damaged(answers.randomElement(using: &serverChance) ?? "", &serverChance))
                }
            }
            for _ in 0..<4 {
                world.client.send(Self.damaged(requests.randomElement(using: &chance) ?? "", &chance))
                if Bool.random(using: &chance) { world.settle() }
                world.upstreams.dialing = Bool.random(using: &chance) ? .immediate : .fails(.noHealthyUpstream)
            }
            switch UInt8.random(in: 0..<4, using: &chance) {
            case 0: world.client.reset()
            case 1: world.client.finish()
            case 2: world.connection.drain()
            default: break
            }
            world.settle()
            // Each of the requests may wait for a server that never answers.
            for _ in 0..<10 { world.advance(seconds: 400) }
            #expect(!world.connection.isBusy, "seed \(seed)")
            world.finish()
        }
    }

    private static func damaged(_ text: String, _ chance: inout Chance) -> [UInt8] {
        var bytes = [UInt8](text)
        guard UInt8.random(in: 0..<3, using: &chance) == 0 else { return bytes }
        let index = Int.random(in: 0..<bytes.count, using: &chance)
        switch UInt8.random(in: 0..<3, using: &chance) {
        case 0: bytes[index] = UInt8.random(in: .min ... .max, using: &chance)
        case 1: bytes.removeSubrange(index...)
        default: bytes.insert(contentsOf: bytes[index...], at: index)
        }
        return bytes
    }
}
