import MeshRuntime
import Testing

/// Everything that hangs on the manual clock: no descriptor is touched.
@Suite struct TimerTests {
    final class Log { var names: [String] = [] }

    final class Named: Timer {
        let name: String
        let log: Log
        var reaction: (() -> Void)?

        init(_ name: String, _ log: Log) {
            self.name = name
            self.log = log
        }

        override func fire() {
            log.names.append(name)
            reaction?()
        }
    }

    let core: Core
    let log = Log()

    init() throws { core = try Core(index: 0, clock: .manual, seed: 7) }

    @Test func firesInOrderOfDeadlineThenOfArming() {
        let timers = ["a", "b", "c", "d"].map { Named($0, log) }
        core.schedule(timers[0], after: 30)
        core.schedule(timers[1], after: 10)
        core.schedule(timers[2], after: 10)
        core.schedule(timers[3], after: 20)
        #expect(core.nextDeadline == 10)
        core.turn(advancing: 9)
        #expect(log.names.isEmpty)
        core.turn(advancing: 1)
        #expect(log.names == ["b", "c"])
        core.turn(advancing: 100)
        #expect(log.names == ["b", "c", "d", "a"])
        #expect(core.nextDeadline == nil)
        #expect(timers.allSatisfy { !$0.isArmed })
    }

    @Test func cancelledTimersDoNotFireEvenWhenDueInTheSameTurn() {
        let first = Named("first", log)
        let second = Named("second", log)
        core.schedule(first, after: 5)
        core.schedule(second, after: 6)
        first.reaction = { [core] in core.cancel(second) }
        core.turn(advancing: 10)
        #expect(log.names == ["first"])
        core.cancel(second)
        core.cancel(first)
        #expect(core.nextDeadline == nil)
    }

    @Test func rearmingMovesTheDeadlineBothWays() {
        let timer = Named("t", log)
        let other = Named("o", log)
        core.schedule(timer, after: 10)
        core.schedule(other, after: 50)
        core.schedule(timer, after: 100)
        #expect(core.nextDeadline == 50)
        core.turn(advancing: 60)
        #expect(log.names == ["o"])
        core.schedule(timer, after: 1)
        #expect(core.nextDeadline == 61)
        core.turn(advancing: 1)
        #expect(log.names == ["o", "t"])
        core.turn(advancing: 1000)
        #expect(log.names == ["o", "t"])
    }

    @Test func timerArmedWhileFiringWaitsForTheNextTurn() {
        let timer = Named("t", log)
        timer.reaction = { [core, timer] in core.schedule(timer, after: 0) }
        core.schedule(timer, after: 0)
        core.turn(advancing: 0)
        core.turn(advancing: 0)
        #expect(log.names == ["t", "t"])
        core.cancel(timer)
        timer.reaction = nil
    }

    @Test func deadlinePastTheEndOfTimeIsNever() {
        core.turn(advancing: 5)
        let timer = Named("t", log)
        core.schedule(timer, after: .max)
        #expect(timer.deadline == .max)
        core.cancel(timer)
    }

    @Test func armedTimerIsKeptAliveUntilItFires() {
        weak var kept: Named?
        do {
            let timer = Named("t", log)
            kept = timer
            core.schedule(timer, after: 1)
        }
        #expect(kept != nil)
        core.turn(advancing: 1)
        #expect(log.names == ["t"])
        #expect(kept == nil)
    }

    /// Compared with a plain list sorted by deadline and order of arming.
    @Test(arguments: [1, 2, 3] as [UInt64])
    func agreesWithSlowModel(seed: UInt64) throws {
        var random = CoreRandom(seed: seed)
        let timers = (0..<60).map { Named("\($0)", log) }
        var model: [(deadline: UInt64, order: Int, name: String)] = []
        var expected: [String] = []
        for step in 0..<5000 {
            let timer = try #require(timers.randomElement(using: &random))
            switch UInt.random(in: 0..<10, using: &random) {
            case 0..<6:
                let delay = UInt64.random(in: 0..<50, using: &random)
                core.schedule(timer, after: delay)
                model.removeAll { $0.name == timer.name }
                model.append((core.now + delay, step, timer.name))
            case 6..<8:
                core.cancel(timer)
                model.removeAll { $0.name == timer.name }
            default:
                core.turn(advancing: UInt64.random(in: 0..<20, using: &random))
                let due = model.filter { $0.deadline <= core.now }
                expected += due.sorted { ($0.deadline, $0.order) < ($1.deadline, $1.order) }.map(\.name)
                model.removeAll { $0.deadline <= core.now }
                #expect(core.nextDeadline == model.map(\.deadline).min())
            }
        }
        #expect(log.names == expected)
        #expect(expected.count > 500)
    }
}

@Suite struct DeferredWorkTests {
    final class Work: DeferredWork {
        var runs = 0
        var reaction: (() -> Void)?

        override func perform() {
            runs += 1
            reaction?()
        }
    }

    let core: Core

    init() throws { core = try Core(index: 0, clock: .manual, seed: 7) }

    @Test func runsOnceATurnHoweverOftenAskedFor() {
        let work = Work()
        for _ in 0..<5 { core.atEndOfTurn(work) }
        #expect(work.isQueued)
        core.turn(advancing: 0)
        core.turn(advancing: 0)
        #expect(work.runs == 1)
        #expect(!work.isQueued)
    }

    @Test func workAskedForByOtherWorkRunsInTheSameTurnByItselfInTheNext() {
        let outer = Work()
        let inner = Work()
        outer.reaction = { [core, outer, inner] in
            core.atEndOfTurn(inner)
            core.atEndOfTurn(outer)
            core.atEndOfTurn(outer)
        }
        core.atEndOfTurn(outer)
        core.turn(advancing: 0)
        #expect((outer.runs, inner.runs) == (1, 1))
        core.turn(advancing: 0)
        #expect((outer.runs, inner.runs) == (2, 2))
        outer.reaction = nil
    }

    @Test func pendingWorkKeepsTheCoreFromSleeping() throws {
        let core = try Core(index: 0)
        let work = Work()
        work.reaction = { [unowned work] in if work.runs < 3 { core.atEndOfTurn(work) } }
        core.atEndOfTurn(work)
        for _ in 0..<3 { core.turn(waitingAtMost: .max) }
        #expect(work.runs == 3)
    }

    @Test func timersRunBeforeMailAndMailBeforeDeferredWork() {
        final class Order { var steps: [String] = [] }
        final class Tick: Timer {
            let order: Order
            init(_ order: Order) { self.order = order }
            override func fire() { order.steps.append("timer") }
        }
        let order = Order()
        let work = Work()
        work.reaction = { order.steps.append("work") }
        core.atEndOfTurn(work)
        core.handle.post { core in core.schedule(Timer(), after: 1_000) }
        core.schedule(Tick(order), after: 1)
        core.turn(advancing: 1)
        #expect(order.steps == ["timer", "work"])
        #expect(core.nextDeadline == 1_001)
    }
}

@Suite struct CoreRandomTests {
    @Test func repeatsFromItsSeedAndDiffersByIt() {
        var one = CoreRandom(seed: 42)
        var same = CoreRandom(seed: 42)
        var other = CoreRandom(seed: 43)
        let first = (0..<100).map { _ in one.next() }
        #expect(first == (0..<100).map { _ in same.next() })
        #expect(first != (0..<100).map { _ in other.next() })
        #expect(Set(first).count == 100)
    }

    /// The generator's published first value for seed 0.
    @Test func isSplitMix64() {
        var random = CoreRandom(seed: 0)
        #expect(random.next() == 0xe220_a839_7b1d_cdaf)
    }

    @Test func coresWithoutSeedDiffer() throws {
        let first = try Core(index: 0, clock: .manual)
        let second = try Core(index: 1, clock: .manual)
        #expect(first.random.next() != second.random.next())
    }
}

@Suite struct BufferPoolTests {
    @Test func leasesAreDistinctCountedAndUsedAgain() throws {
        let pool = try Core(index: 0, clock: .manual).buffers
        let first = pool.lease()
        let second = pool.lease()
        #expect(first.baseAddress != second.baseAddress)
        #expect(first.count == 65536)
        first.initializeMemory(as: UInt8.self, repeating: 0xff)
        #expect(pool.leased == 2)
        pool.giveBack(first)
        #expect(pool.lease().baseAddress == first.baseAddress)
        pool.giveBack(first)
        pool.giveBack(second)
        #expect(pool.leased == 0)
        #expect(pool.mostLeased == 2)
    }

    @Test func aBurstPastTheKeptBlocksComesBackWhole() throws {
        let pool = try Core(index: 0, clock: .manual).buffers
        let blocks = (0..<400).map { _ in pool.lease() }
        #expect(Set(blocks.map { $0.baseAddress }).count == 400)
        blocks.forEach(pool.giveBack)
        #expect(pool.leased == 0)
    }
}
