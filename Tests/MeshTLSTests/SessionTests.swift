import MeshModel
import Testing

@testable import MeshTLS

@Suite struct SessionTests {
    @Test func bothSidesLearnWhoTheOtherIs() throws {
        let pair = try Pair.established(Mint())
        #expect(pair.client.state == .established)
        #expect(pair.server.state == .established)
        #expect(pair.client.peerIdentity == identity("server"))
        #expect(pair.server.peerIdentity == identity("client"))
        #expect(pair.server.peerNotAfter == now + EmbeddedAuthority.defaultLifetimeSeconds)
        #expect(pair.client.cipherSuite == "TLS_AES_128_GCM_SHA256")
    }

    @Test func theServerSaysNothingAfterTheHandshake() throws {
        let mint = try Mint()
        let client = try TLSSession(client: mint.context("client"), expecting: [identity("server")])
        let server = try TLSSession(server: mint.context("server"))
        let hello = client.handshake([]).output
        let flight = server.handshake(hello).output
        let finish = client.handshake(flight)
        #expect(finish.status == .done)
        // No session tickets: a byte here would be one.
        let last = server.handshake(finish.output)
        #expect(last.status == .done)
        #expect(last.output.isEmpty)
    }

    @Test func theClientSendsNoServerName() throws {
        let mint = try Mint()
        let hello = try TLSSession(client: mint.context("client"), expecting: [identity("server")]).handshake([]).output
        #expect(try !extensions(of: hello).contains(0))
        // ALPN and supported_versions are there; session tickets, PSK and early data are not.
        #expect(try extensions(of: hello).isSuperset(of: [16, 43]))
        #expect(try extensions(of: hello).isDisjoint(with: [35, 41, 42]))
    }

    @Test(arguments: [1, 2, 5, 7, 100, 1000])
    func handshakesInChunksOfAnySize(_ chunk: Int) throws {
        let mint = try Mint()
        let pair = try Pair(mint.context("client"), mint.context("server"), expecting: [identity("server")])
        pair.shake(chunk: { chunk }, room: chunk)
        #expect(pair.client.state == .established)
        #expect(pair.server.state == .established)
        let message = [UInt8]("through a narrow pipe".utf8)
        #expect(pair.server.open(pair.client.seal(message)).plaintext == message)
    }

    @Test func dataInTheFlightOfTheFinishIsLeftForOpen() throws {
        let mint = try Mint()
        let client = try TLSSession(client: mint.context("client"), expecting: [identity("server")])
        let server = try TLSSession(server: mint.context("server"))
        let flight = server.handshake(client.handshake([]).output).output
        let finish = client.handshake(flight).output
        let early = client.seal([1, 2, 3])
        let step = server.handshake(finish + early)
        #expect(step.status == .done)
        #expect(server.open(step.rest).plaintext == [1, 2, 3])
    }

    @Test func carries64MiBBothWaysInRandomSplits() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("carries64MiBBothWaysInRandomSplits seed \(seed)")
        var chance = Chance(state: seed)
        let pair = try Pair.established(Mint())
        // Rekeys on the way, often and never at the same record of both directions.
        pair.client.recordsPerKey = 37
        pair.server.recordsPerKey = 101
        var block = [UInt8](repeating: 0, count: 1 << 20)
        block.withUnsafeMutableBytes { bytes in
            let words = bytes.bindMemory(to: UInt64.self)
            for index in words.indices { words[index] = chance.next() }
        }
        var clientToServer = Direction(from: pair.client, to: pair.server, block: block)
        var serverToClient = Direction(from: pair.server, to: pair.client, block: block)
        let total = 64 << 20
        while clientToServer.received < total || serverToClient.received < total {
            try clientToServer.step(total, &chance)
            try serverToClient.step(total, &chance)
        }
        #expect(clientToServer.received == total)
        #expect(serverToClient.received == total)
    }

    @Test func manyRecordsInOneCall() throws {
        let pair = try Pair.established(Mint())
        let records = (0..<100).map { pair.client.seal([UInt8](repeating: UInt8($0), count: 128)) }
        let stream = records.flatMap { $0 }
        var place = [UInt8](repeating: 0, count: 100 * 128)
        let progress = stream.withUnsafeBytes { bytes in
            place.withUnsafeMutableBytes { pair.server.open(bytes, into: $0) }
        }
        #expect(progress == .init(consumed: stream.count, produced: 12_800, status: .plaintextFull))
        #expect(place == (0..<100).flatMap { [UInt8](repeating: UInt8($0), count: 128) })
        #expect(pair.server.open([]).status == .needMore)

        // And sealing: as many full records as there is room for.
        let bulk = [UInt8](repeating: 9, count: 100_000)
        var wire = [UInt8](repeating: 0, count: 3 * (16_384 + TLSSession.maximumRecordOverhead))
        let sealed = bulk.withUnsafeBytes { bytes in
            wire.withUnsafeMutableBytes { pair.client.seal(bytes, into: $0) }
        }
        #expect(sealed == .init(consumed: 3 * 16_384, produced: wire.count, status: .outputFull))
    }

    @Test func roomTooSmallForARecordTakesNothing() throws {
        let pair = try Pair.established(Mint())
        for room in 0...TLSSession.maximumRecordOverhead {
            var wire = [UInt8](repeating: 0, count: room)
            let sealed = wire.withUnsafeMutableBytes { place in
                [UInt8](repeating: 1, count: 10).withUnsafeBytes { pair.client.seal($0, into: place) }
            }
            #expect(sealed == .init(consumed: 0, produced: 0, status: .outputFull))
        }
        #expect(pair.server.open(pair.client.seal([7], room: 23)).plaintext == [7])
    }

    @Test func closeNotifyEndsOneDirectionOnly() throws {
        let pair = try Pair.established(Mint())
        let last = pair.client.seal([1, 2, 3]) + pair.client.closeNotify()
        let got = pair.server.open(last)
        #expect(got.plaintext == [1, 2, 3])
        #expect(got.status == .closed)
        #expect(pair.server.state == .closed)
        #expect(pair.server.endOfInput() == nil)
        // The server may go on talking.
        #expect(pair.client.open(pair.server.seal([4, 5])).plaintext == [4, 5])
        #expect(pair.client.open(pair.server.closeNotify()).status == .closed)
        #expect(pair.client.closeNotify().isEmpty)
    }

    @Test func aStreamCutShortIsNotAnEnd() throws {
        let pair = try Pair.established(Mint())
        let record = pair.client.seal([1, 2, 3])
        #expect(pair.server.open(Array(record.dropLast())).plaintext.isEmpty)
        #expect(pair.server.endOfInput() == TLSFailure(.truncated))
        #expect(pair.server.state == .failed(TLSFailure(.truncated)))
        let fresh = try TLSSession(server: Mint().context("server"))
        #expect(fresh.endOfInput() == TLSFailure(.truncated))
    }

    @Test func releasedBuffersComeBack() throws {
        let pair = try Pair.established(Mint())
        for round in 0..<3 {
            let message = [UInt8](repeating: UInt8(round), count: 20_000)
            #expect(pair.server.open(pair.client.seal(message)).plaintext == message)
            pair.client.releaseBuffers()
            pair.server.releaseBuffers()
        }
        // Half a record inside: kept.
        let record = pair.client.seal([1, 2, 3, 4])
        _ = pair.server.open(Array(record[..<10]))
        pair.server.releaseBuffers()
        #expect(pair.server.open(Array(record[10...])).plaintext == [1, 2, 3, 4])
    }

    @Test func oneContextServesManyThreads() async throws {
        let mint = try Mint()
        let client = try mint.context("client")
        let server = try mint.context("server")
        await withTaskGroup(of: Bool.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    for _ in 0..<10 {
                        let pair = Pair(client, server, expecting: [identity("server")])
                        pair.shake()
                        guard pair.server.open(pair.client.seal([1])).plaintext == [1] else { return false }
                    }
                    return true
                }
            }
            for await isGood in group { #expect(isGood) }
        }
    }

    /// The extension types of a ClientHello in one record (RFC 8446 §4.1.2).
    private func extensions(of hello: [UInt8]) throws -> Set<Int> {
        func number(_ at: Int) -> Int { Int(hello[at]) << 8 | Int(hello[at + 1]) }
        var at = 5 + 4 + 2 + 32
        at += 1 + Int(hello[at])
        at += 2 + number(at)
        at += 1 + Int(hello[at])
        let end = at + 2 + number(at)
        try #require(end == hello.count)
        at += 2
        var types: Set<Int> = []
        while at < end {
            types.insert(number(at))
            at += 4 + number(at + 2)
        }
        return types
    }
}

/// One direction of a bulk transfer: seals and opens random amounts, keeps what is in flight.
private struct Direction {
    let from: TLSSession
    let to: TLSSession
    let block: [UInt8]
    var sent = 0
    var received = 0
    private var wire = UnsafeRegion(1 << 20)
    private var place = UnsafeRegion(1 << 17)
    private var flying = 0

    init(from: TLSSession, to: TLSSession, block: [UInt8]) {
        self.from = from
        self.to = to
        self.block = block
    }

    mutating func step(_ total: Int, _ chance: inout Chance) throws {
        let offset = sent % block.count
        let count = min(total - sent, block.count - offset, Int.random(in: 1...200_000, using: &chance))
        let room = min(wire.bytes.count - flying, Int.random(in: 1...300_000, using: &chance))
        if count > 0 || from.hasPendingOutput {
            let progress = block.withUnsafeBytes { bytes in
                from.seal(
                    .init(rebasing: bytes[offset..<offset + count]),
                    into: .init(rebasing: wire.bytes[flying..<flying + room]))
            }
            try #require(progress.status != .failed)
            sent += progress.consumed
            flying += progress.produced
        }
        var start = 0
        while start < flying {
            let given = min(flying - start, Int.random(in: 1...100_000, using: &chance))
            let space = Int.random(in: 1...place.bytes.count, using: &chance)
            let progress = to.open(
                .init(rebasing: wire.bytes[start..<start + given]), into: .init(rebasing: place.bytes[..<space]))
            try #require(progress.status == .needMore || progress.status == .plaintextFull)
            start += progress.consumed
            try check(progress.produced)
        }
        flying = 0
        while true {
            let progress = to.open(.init(start: nil, count: 0), into: place.bytes)
            try check(progress.produced)
            guard progress.status == .plaintextFull else { break }
        }
    }

    private mutating func check(_ count: Int) throws {
        var checked = 0
        while checked < count {
            let offset = received % block.count
            let part = min(count - checked, block.count - offset)
            let isEqual = block.withUnsafeBytes { bytes in
                memcmpEqual(bytes.baseAddress! + offset, place.bytes.baseAddress! + checked, part)
            }
            try #require(isEqual)
            checked += part
            received += part
        }
    }
}

/// Memory that is freed with its last owner.
private final class UnsafeRegion {
    let bytes: UnsafeMutableRawBufferPointer

    init(_ count: Int) { bytes = .allocate(byteCount: count, alignment: 16) }
    deinit { bytes.deallocate() }
}
