import MeshModel
import MeshRuntime
import MeshTestKit
import Testing

@testable import MeshProxy

/// Every bound of a session, on a clock that the test moves.
@Suite struct TunnelLimitTests {
    private func finish(_ world: TunnelWorld, _ callers: [Endpoint] = []) {
        for caller in callers { caller.close() }
        let left = world.end()
        #expect(left.leased == 0 && left.connections == 0 && left.sessions == 0)
        #expect(world.network.violations == [])
    }

    @Test func aHandshakeThatDoesNotComeIsCutOff() throws {
        let world = try TunnelWorld()
        let (silent, accepted) = world.network.pair(capacity: 1_000)
        let nobody = Endpoint(silent, sends: 1, expects: 2, total: 0)
        nobody.finishes = false
        nobody.work()
        world.accept(accepted)
        world.pass(seconds: 9)
        #expect(world.target.servers.count == 1)
        world.pass(seconds: 1)
        #expect(world.target.servers.isEmpty)
        #expect(world.far.reasons == [.handshakeTimeout])
        #expect(nobody.isDone || nobody.hasEnded)
        nobody.close()
        finish(world)
    }

    @Test func aPeerThatDoesNotShakeHandsIsGivenUp() throws {
        let world = try TunnelWorld()
        var silent: [Endpoint] = []
        world.arrives = {
            let peer = Endpoint($0, sends: 1, expects: 2, total: 0)
            peer.finishes = false
            silent.append(peer)
        }
        let caller = world.call(total: 10)
        world.settle()
        world.pass(seconds: 10)
        #expect(world.near.reasons == [.handshakeTimeout])
        #expect(caller.failure == .reset && world.caller.pool.sessionCount == 0)
        for peer in silent { peer.close() }
        finish(world, [caller])
    }

    @Test func aPeerThatCannotBeReachedIsGivenUp() throws {
        let world = try TunnelWorld()
        world.network.weather.delayPercent = 100
        let caller = world.call(total: 10)
        for _ in 0..<11 { world.network.step(advancing: 1_000_000_000) }
        world.network.weather.delayPercent = 0
        world.settle()
        #expect(world.near.reasons == [.upstreamConnectTimeout])
        #expect(world.caller.pool.sessionCount == 0)
        finish(world, [caller])
    }

    @Test func aSessionWithoutARequestIsCutOff() throws {
        let world = try TunnelWorld()
        // Asks for a session and for nothing more.
        world.caller.pool.connect(world.tunnel(), client: nil, service: nil) { _ in }.cancel()
        world.pass(seconds: 9)
        #expect(world.target.servers.count == 1 && world.target.servers.values.first?.peer != nil)
        world.pass(seconds: 2)
        #expect(world.far.reasons == [.requestTimeout])
        #expect(world.target.servers.isEmpty)
        finish(world)
    }

    @Test func handshakesInFlightAreBounded() throws {
        var limits = Limits()
        limits.handshakesInFlightPerCore = 2
        let world = try TunnelWorld(limits: limits)
        let silent = (0..<3).map { _ in
            let (end, accepted) = world.network.pair(capacity: 1_000)
            let peer = Endpoint(end, sends: 1, expects: 2, total: 0)
            peer.finishes = false
            peer.work()
            world.accept(accepted)
            return peer
        }
        world.settle()
        #expect(world.far.reasons == [.limitReached])
        #expect(silent.map { $0.failure == .reset } == [false, false, true])
        let early = world.call(total: 10)
        world.settle()
        #expect(world.near.reasons.count == 1 && early.failure == .reset)
        silent[0].reset()
        world.settle()
        // One place is free again, and a handshake that succeeds gives it back.
        for _ in 0..<3 {
            let caller = world.call(total: 10)
            world.settle()
            #expect(caller.hasEnded)
            caller.close()
            world.caller.pool.retireAll()
            world.settle()
        }
        #expect(world.near.reasons.suffix(3) == [.none, .none, .none])
        for peer in silent { peer.close() }
        early.close()
        finish(world)
    }

    @Test func anIdleSessionIsClosedAfterItsTime() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 10)
        world.settle()
        #expect(caller.hasEnded && world.caller.pool.sessionCount == 1)
        world.pass(seconds: 290)
        #expect(world.caller.pool.sessionCount == 1 && world.target.servers.count == 1)
        world.pass(seconds: 21)
        #expect(world.caller.pool.sessionCount == 0 && world.target.servers.isEmpty)
        #expect(world.far.reasons == [.none] && world.near.reasons == [.none])
        finish(world, [caller])
    }

    @Test func aSessionInUseIsNotIdle() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 10) { $0.finishes = false }
        world.settle()
        world.pass(seconds: 400)
        #expect(world.caller.pool.sessionCount == 1)
        caller.finishes = true
        caller.work()
        world.settle()
        #expect(caller.hasEnded && world.near.reasons == [.none])
        finish(world, [caller])
    }

    @Test func aPeerThatAnswersNoPingIsGivenUp() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 10) { $0.finishes = false }
        world.settle()
        world.network.weather.delayPercent = 100
        for _ in 0..<45 { world.network.step(advancing: 1_000_000_000) }
        #expect(world.near.reasons == [.upstreamReset])
        #expect(world.caller.pool.sessionCount == 0)
        world.network.weather.delayPercent = 0
        world.settle()
        finish(world, [caller])
    }

    @Test func aCorruptRecordEndsASessionThatCannotSend() throws {
        let world = try TunnelWorld()
        world.transportCapacity = 65_536
        var middle: [(near: ByteStream, far: SimulatedStream)] = []
        world.arrives = { stream in
            let (garbler, accepted) = world.network.pair(capacity: 65_536)
            middle.append((garbler, stream))
            world.accept(accepted)
        }
        world.prepare = { $0.finishes = false }
        let caller = world.call(total: 10) { $0.finishes = false }
        let wire = Wire(middle[0].far, middle[0].near)
        wire.work()
        world.settle()
        #expect(world.applications.count == 1)
        // The peer reads no more, and the session has more to say than a block holds.
        wire.isReadingFar = false
        world.applications[0].total = 1 << 20
        world.applications[0].send()
        world.network.step()
        // From here on the socket takes nothing, so a whole batch is kept.
        world.network.weather.wouldBlockPercent = 100
        for _ in 0..<5 { world.network.step() }
        world.network.weather.wouldBlockPercent = 0
        _ = [UInt8](repeating: 23, count: 4_096).withUnsafeBytes { middle[0].near.write($0) }
        world.settle()
        #expect(world.target.servers.isEmpty)
        #expect(world.far.reasons.count == 1)
        wire.close()
        world.settle()
        finish(world, [caller])
    }
}

/// Copies bytes between two streams, as a cable that somebody holds in his hand.
private final class Wire: StreamOwner {
    private let left: ByteStream
    private let right: ByteStream
    var isReadingFar = true

    init(_ left: ByteStream, _ right: ByteStream) {
        self.left = left
        self.right = right
        super.init()
        left.owner = self
        right.owner = self
    }

    func work() {
        copy(left, right)
        if isReadingFar { copy(right, left) }
    }

    private func copy(_ source: ByteStream, _ sink: ByteStream) {
        withUnsafeTemporaryAllocation(byteCount: 4_096, alignment: 1) { space in
            while case .bytes(let count) = source.read(into: space) {
                _ = sink.write(UnsafeRawBufferPointer(rebasing: space[..<count]))
            }
        }
    }

    func close() {
        left.close()
        right.close()
    }

    override func streamIsReadable(_ stream: ByteStream) { work() }
    override func streamIsWritable(_ stream: ByteStream) { work() }
}
