import MeshModel
import MeshRuntime
import MeshTestKit
import Testing

@testable import MeshProxy

@Suite struct TunnelSessionTests {
    private func finish(_ world: TunnelWorld, _ callers: [Endpoint] = []) {
        for caller in callers { caller.close() }
        let left = world.end()
        #expect(left.leased == 0)
        #expect(left.connections == 0)
        #expect(left.sessions == 0)
        #expect(left.open == 0)
        #expect(world.network.violations == [])
    }

    @Test func manyStreamsShareSessionsThatGrowInNumber() throws {
        let world = try TunnelWorld()
        world.prepare = { $0.total = 30_000 }
        let callers = (0..<250).map { _ in world.call(total: 20_000) { $0.finishes = false } }
        world.settle()
        #expect(world.caller.pool.sessionCount == 3)
        #expect(world.applications.count == 250)
        #expect(world.applications.allSatisfy { $0.received == 20_000 && !$0.isGarbled && !$0.hasEnded })
        #expect(callers.allSatisfy { $0.received == 30_000 && !$0.isGarbled && $0.hasEnded })
        for caller in callers {
            caller.finishes = true
            caller.work()
        }
        world.settle()
        #expect(world.applications.allSatisfy { $0.hasEnded })
        #expect(world.near.reasons == Array(repeating: .none, count: 250))
        #expect(world.far.reasons == Array(repeating: .none, count: 250))
        #expect(world.near.connections.count == 0 && world.network.core.buffers.leased == 0)
        // They are kept, and one of them takes the next.
        let next = world.call(total: 10)
        world.settle()
        #expect(next.hasEnded && world.caller.pool.sessionCount == 3)
        finish(world, callers + [next])
    }

    @Test(arguments: [
        (401, Reason.policyDeny), (403, .policyDeny), (400, .badAuthority), (503, .upstreamRefused),
        (404, .routeNotFound), (504, .upstreamConnectTimeout), (204, .protocolError),
    ])
    func aRefusalIsMappedToItsReason(status: Int, reason: Reason) throws {
        let world = try TunnelWorld()
        world.answersWith = status
        let caller = world.call(total: 10)
        world.settle()
        #expect(caller.failure == .reset)
        #expect(world.near.reasons == [reason])
        #expect(world.near.records.first?.error == "http status: \(status)")
        #expect(world.caller.pool.sessionCount == 1)
        finish(world, [caller])
    }

    @Test func anAuthorityOfAnotherAddressIsRefused() throws {
        let world = try TunnelWorld()
        world.far.answer = nil
        let (end, downstream) = world.network.pair(capacity: 1_000)
        let connection = TestConnection(hub: world.near, downstream: downstream)
        let caller = Endpoint(end, sends: 1, expects: 2, total: 0)
        var tunnel = world.tunnel()
        tunnel.authority = .test(77, 80)
        connection.dial = world.caller.dial(tunnel, client: nil, service: nil) { connection.dialled($0) }
        caller.work()
        world.settle()
        #expect(world.near.reasons == [.badAuthority])
        #expect(world.far.reasons == [.badAuthority])
        #expect(caller.failure == .reset)
        finish(world, [caller])
    }

    @Test func aPeerThatVanishesBreaksItsStreamsAndIsForgotten() throws {
        let world = try TunnelWorld()
        world.prepare = { $0.finishes = false }
        let callers = (0..<10).map { _ in world.call(total: 5_000) { $0.finishes = false } }
        world.settle()
        #expect(world.applications.count == 10)
        world.transports[0].vanish()
        world.settle()
        #expect(callers.allSatisfy { $0.failure == .reset })
        #expect(world.applications.allSatisfy { $0.failure == .reset })
        #expect(world.near.reasons == Array(repeating: .upstreamReset, count: 10))
        #expect(world.far.reasons == Array(repeating: .downstreamReset, count: 10))
        #expect(world.caller.pool.sessionCount == 0 && world.target.servers.isEmpty)
        #expect(world.network.core.buffers.leased == 0)
        world.prepare = { _ in }
        let next = world.call(total: 10)
        world.settle()
        #expect(next.hasEnded && world.caller.pool.sessionCount == 1)
        finish(world, callers + [next])
    }

    @Test func aDrainingPeerFinishesWhatItCarries() throws {
        let world = try TunnelWorld()
        let callers = (0..<5).map { _ in world.call(total: 1_000) { $0.finishes = false } }
        world.settle()
        world.far.drain()
        world.settle()
        #expect(world.caller.pool.sessionCount == 0)
        #expect(world.target.servers.count == 1)
        for caller in callers {
            caller.total = 100_000
            caller.finishes = true
            caller.work()
        }
        world.settle()
        #expect(world.applications.allSatisfy { $0.received == 100_000 && $0.hasEnded && !$0.isGarbled })
        #expect(world.near.reasons == Array(repeating: .none, count: 5))
        // The last stream is over: so is the session, on both sides.
        #expect(world.target.servers.isEmpty)
        let next = world.call(total: 10)
        world.settle()
        #expect(next.hasEnded && world.transports.count == 2)
        finish(world, callers + [next])
    }

    @Test func aRotatedCertificateRetiresSessionsAndKeepsTheirStreams() throws {
        let world = try TunnelWorld()
        let old = world.call(total: 1_000) { $0.finishes = false }
        world.settle()
        world.caller.install(try TestIdentity.context("caller"))
        world.settle()
        #expect(world.caller.pool.sessionCount == 0)
        let new = world.call(total: 1_000) { $0.finishes = false }
        world.settle()
        #expect(world.caller.pool.sessionCount == 1 && world.transports.count == 2)
        world.target.install(try TestIdentity.context("target"))
        world.settle()
        for caller in [old, new] {
            caller.total = 50_000
            caller.finishes = true
            caller.work()
        }
        world.settle()
        #expect(world.applications.allSatisfy { $0.received == 50_000 && $0.hasEnded })
        #expect(old.hasEnded && new.hasEnded)
        #expect(world.near.reasons == [.none, .none] && world.far.reasons == [.none, .none])
        #expect(world.caller.pool.sessionCount == 0 && world.target.servers.isEmpty)
        finish(world, [old, new])
    }

    @Test func aWorkloadThatGoesTakesItsRetiredSessionsAlong() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 1_000) { $0.finishes = false }
        world.settle()
        world.caller.install(try TestIdentity.context("caller"))
        world.settle()
        #expect(world.caller.pool.sessionCount == 0, "the session is retired and still carries the stream")
        world.caller.close(.workloadGone)
        world.settle()
        #expect(world.near.reasons.count == 1 && world.near.reasons != [.none])
        #expect(world.target.servers.isEmpty)
        finish(world, [caller])
    }

    @Test func aRetiredSessionStillServesThoseThatWaitForIt() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 1_000)
        world.caller.install(try TestIdentity.context("caller"))
        world.settle()
        #expect(caller.hasEnded && world.near.reasons == [.none])
        #expect(world.caller.pool.sessionCount == 0 && world.target.servers.isEmpty)
        finish(world, [caller])
    }

    @Test func anotherIdentityThanExpectedIsRefused() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 10, to: "somebody-else")
        world.settle()
        #expect(world.near.reasons == [.peerIdentity])
        #expect(world.far.reasons.count == 1)
        #expect(caller.failure == .reset)
        #expect(world.caller.pool.sessionCount == 0 && world.target.servers.isEmpty)
        finish(world, [caller])
    }

    @Test func anUnansweredRequestThatIsResetFailsAtOnce() throws {
        let world = try TunnelWorld()
        world.far.answer = { request, _ in request.stream.reset() }
        let caller = world.call(total: 10)
        world.settle()
        #expect(world.near.reasons == [.upstreamReset])
        #expect(caller.failure == .reset)
        finish(world, [caller])
    }

    /// What is forbidden now ends now, however much of what came before still waits for a slow reader.
    @Test func aDecisionEndsAConnectionWhoseReaderIsSlow() throws {
        let world = try TunnelWorld()
        let caller = world.call(total: 10) { $0.finishes = false }
        world.settle()
        world.applications[0].isReading = false
        caller.total = 800_000
        caller.work()
        world.settle()
        #expect(world.far.connections.count == 1 && world.network.core.buffers.leased > 0)
        world.near.connections.forEach { $0.terminate(.policyChanged) }
        world.settle()
        #expect(world.near.reasons == [.policyChanged])
        #expect(world.far.connections.count == 0 && world.far.reasons == [.downstreamReset])
        finish(world, [caller])
    }

    /// A waypoint closes an idle connection: END_STREAM, then RST_STREAM(NO_ERROR), as it reads no more.
    @Test func aStreamClosedInOrderIsAnEndAndNoAbort() throws {
        let world = try TunnelWorld()
        var streams: [TunnelStream] = []
        world.far.answer = { request, _ in
            request.accept(baggage: nil)
            streams.append(request.stream)
        }
        let caller = world.call(total: 1_000) { $0.finishes = false }
        world.settle()
        streams[0].close()
        world.settle()
        #expect(caller.hasEnded, "the caller sees an end")
        // It ends, too, and the record says that nothing went wrong.
        caller.finishes = true
        caller.work()
        world.settle()
        #expect(world.near.reasons == [.none])
        finish(world, [caller])
    }

    @Test func aStreamClosedByThePeerLeavesNothingBehind() throws {
        var limits = Limits()
        limits.bufferedBytesPerStream = 65_535
        let world = try TunnelWorld(limits: limits)
        var streams: [TunnelStream] = []
        world.far.answer = { request, _ in
            request.accept(baggage: nil)
            streams.append(request.stream)
        }
        // More than the window, less than window and queue together: the relay has handed over everything.
        let caller = world.call(total: 150_000)
        world.settle()
        // It answers, ends and goes, while our bytes still wait for its window: RST_STREAM(NO_ERROR).
        // Both frames arrive at once, so that the relay hears of the end when the stream is closed already.
        world.network.weather.delayPercent = 100
        streams[0].close()
        for _ in 0..<5 { world.network.step() }
        world.network.weather.delayPercent = 0
        world.settle()
        caller.close()
        world.settle()
        #expect(world.near.connections.count == 0)
        #expect(world.network.core.buffers.leased == 0)
        world.caller.pool.retireAll()
        world.settle()
        #expect(world.target.servers.isEmpty)
        finish(world)
    }
}
