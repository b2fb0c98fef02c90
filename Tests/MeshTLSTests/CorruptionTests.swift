import MeshModel
import Testing

@testable import MeshTLS

/// Peers that send anything at all: no trap, no wrong data, and the next session is not affected.
@Suite struct CorruptionTests {
    @Test func randomChangesOfTheHandshake() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("randomChangesOfTheHandshake seed \(seed)")
        var chance = Chance(state: seed)
        let mint = try Mint()
        let client = try mint.context("client")
        let server = try mint.context("server")
        for _ in 0..<400 {
            let pair = Pair(client, server, expecting: [identity("server")])
            let target = Int.random(in: 0..<3, using: &chance)
            var hello = pair.client.handshake([]).output
            if target == 0 { hello.corrupt(&chance) }
            var flight = pair.server.handshake(hello).output
            if target == 1 { flight.corrupt(&chance) }
            var finish = pair.client.handshake(flight).output
            if target == 2 { finish.corrupt(&chance) }
            guard pair.server.state == .handshaking else { continue }
            let last = pair.server.handshake(finish)
            guard last.status == .done, pair.client.state == .established else { continue }
            #expect(pair.server.peerIdentity == identity("client"))
            #expect(pair.client.peerIdentity == identity("server"))
        }
        #expect(try Pair.established(mint).server.state == .established)
    }

    @Test func randomChangesOfRecords() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("randomChangesOfRecords seed \(seed)")
        var chance = Chance(state: seed)
        let mint = try Mint()
        for _ in 0..<200 {
            let pair = try Pair.established(mint)
            var sent: [UInt8] = []
            var stream: [UInt8] = []
            for _ in 0..<Int.random(in: 1...8, using: &chance) {
                let part = (0..<Int.random(in: 1...3000, using: &chance)).map { _ in
                    UInt8.random(in: 0...255, using: &chance)
                }
                sent += part
                stream += pair.client.seal(part)
            }
            stream.corrupt(&chance)
            let got = pair.server.open(stream)
            // What is delivered is a beginning of what was sent, never anything else.
            #expect(sent.starts(with: got.plaintext))
            #expect(got.plaintext.count < sent.count || got.status != .closed)
            #expect(pair.server.endOfInput() != nil)
        }
    }

    @Test func garbageInsteadOfTLS() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("garbageInsteadOfTLS seed \(seed)")
        var chance = Chance(state: seed)
        let context = try Mint().context("server")
        for round in 0..<300 {
            let server = TLSSession(server: context)
            var bytes = (0..<Int.random(in: 1...2000, using: &chance)).map { _ in
                UInt8.random(in: 0...255, using: &chance)
            }
            // Half of them look like a handshake record at first.
            if round % 2 == 0 { bytes = [22, 3, 1, UInt8.random(in: 0...64, using: &chance)] + bytes }
            let step = server.handshake(bytes)
            #expect(step.status != .done)
        }
        let server = TLSSession(server: context)
        let step = server.handshake(Array("GET / HTTP/1.1\r\nHost: shop\r\n\r\n".utf8))
        #expect(step.status == .failed)
        #expect(server.reason == .protocolViolation("http request"))
    }

    @Test func aRecordLargerThanTLSAllows() throws {
        let pair = try Pair.established(Mint())
        let header: [UInt8] = [23, 3, 3, 0xFF, 0xFF]
        #expect(pair.server.open(header + [UInt8](repeating: 0, count: 70_000)).status == .failed)
        #expect(pair.client.open(pair.server.flush()).status == .failed)
        #expect(pair.client.reason == .alert(22))
    }
}

extension [UInt8] {
    /// One of: a few bits flipped, a piece cut out, a piece repeated, a piece of noise put in.
    fileprivate mutating func corrupt(_ chance: inout Chance) {
        guard !isEmpty else { return }
        let at = Int.random(in: 0..<count, using: &chance)
        let end = Swift.min(count, at + Int.random(in: 1...64, using: &chance))
        switch Int.random(in: 0..<4, using: &chance) {
        case 0:
            for _ in 0..<Int.random(in: 1...4, using: &chance) {
                self[Int.random(in: 0..<count, using: &chance)] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &chance)
            }
        case 1: removeSubrange(at..<end)
        case 2: insert(contentsOf: Array(self[at..<end]), at: at)
        default: insert(contentsOf: (at..<end).map { _ in UInt8.random(in: 0...255, using: &chance) }, at: at)
        }
    }
}
