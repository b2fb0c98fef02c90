import MeshModel
import MeshRuntime
import MeshTestKit
import Testing

@testable import MeshProxy

/// Random worlds through two proxies and a session between them.
@Suite struct TunnelWorldTests {
    /// Something that befalls the world once.
    private enum Event: Int, CaseIterable {
        case nothing, transportVanishes, farDrains, nearRotates, farRotates, callerResets, applicationResets
    }

    @Test(arguments: Array(0..<8))
    func streamsKeepTheirPromises(batch: UInt64) throws {
        for seed in (batch * 1_000)..<(batch * 1_000 + 25) {
            try world(seed)
        }
    }

    private func world(_ seed: UInt64) throws {
        var random = CoreRandom(seed: seed)
        var limits = Limits()
        limits.bufferedBytesPerStream = Int.random(in: 65_535...300_000, using: &random)
        limits.pooledStreamsPerSession = Int.random(in: 1...4, using: &random)
        var weather = SimulatedWeather(random: &random)
        weather.largestPiece = weather.largestPiece.map { $0 + 200 }
        let world = try TunnelWorld(seed: seed, limits: limits, weather: weather)
        world.transportCapacity = Int.random(in: 500...200_000, using: &random)
        let most = (weather.largestPiece ?? 10_000) * 20
        world.prepare = {
            $0.total = world.network.choose(0...most)
            $0.chunk = world.network.choose(1...65_536)
        }
        let callers = (0..<Int.random(in: 1...8, using: &random)).map { _ in
            world.call(total: world.network.choose(0...most)) { $0.chunk = world.network.choose(1...65_536) }
        }
        let event = Event.allCases.randomElement(using: &random) ?? .nothing
        let moment = Int.random(in: 0...120, using: &random)
        for _ in 0..<moment { world.network.step() }
        try befall(world, callers, event)
        let settled = world.network.settle(atMost: 100_000)
        let context = Comment(rawValue: "world \(seed), \(event) at \(moment)")
        #expect(settled, context)
        #expect(world.network.violations == [], context)
        #expect(callers.allSatisfy { !$0.isGarbled && $0.isDone }, context)
        #expect(world.applications.allSatisfy { !$0.isGarbled && $0.isDone }, context)
        #expect(world.near.records.count == callers.count, context)
        #expect(world.near.connections.count == 0 && world.far.connections.count == 0, context)
        let clean = callers.count { $0.hasEnded && $0.failure == nil && !$0.isOver }
        #expect(world.near.reasons.count { $0 == .none } <= clean + (event == .callerResets ? 1 : 0), context)
        switch event {
        case .nothing, .nearRotates, .farRotates:
            #expect(world.near.reasons.allSatisfy { $0 == .none }, context)
            #expect(world.applications.map(\.received).sorted() == callers.map(\.total).sorted(), context)
            #expect(callers.map(\.received).sorted() == world.applications.map(\.total).sorted(), context)
        case .callerResets, .applicationResets:
            #expect(world.near.reasons.count { $0 != .none } <= 1, context)
        case .transportVanishes, .farDrains: break
        }
        // Whoever saw a clean end got all of it.
        let all = callers.reduce(0) { $0 + $1.total }
        if world.near.reasons.allSatisfy({ $0 == .none }) {
            #expect(world.near.records.reduce(0) { $0 + Int($1.bytesFromDownstream) } == all, context)
        }
        #expect(world.network.core.buffers.leased == 0, context)
        for caller in callers { caller.close() }
        let left = world.end()
        #expect(left.leased == 0 && left.connections == 0 && left.sessions == 0 && left.open == 0, context)
    }

    private func befall(_ world: TunnelWorld, _ callers: [Endpoint], _ event: Event) throws {
        switch event {
        case .nothing: break
        case .transportVanishes: world.transports.first?.vanish()
        case .farDrains: world.far.drain()
        case .nearRotates: world.caller.install(try TestIdentity.context("caller"))
        case .farRotates: world.target.install(try TestIdentity.context("target"))
        case .callerResets: callers[0].reset()
        case .applicationResets: world.applications.first?.reset()
        }
    }
}
