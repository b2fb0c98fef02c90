import MeshModel
import MeshRuntime
import MeshTestKit
import Testing

@testable import MeshProxy

@Suite struct SlowReaderTests {
    /// Blocks that the two proxies may hold for one direction of one stream: what the receiver's window lets in (with
    /// a part of a block at either end), what waits to be framed, a batch of ciphertext on each side, and one block for
    /// each relay.
    private func bound(_ limits: Limits) -> Int {
        let window = limits.bufferedBytesPerStream / BufferPool.blockBytes + 2
        let framing = TunnelStream.sendLimit / BufferPool.blockBytes + 1
        return window + framing + 2 + 2
    }

    @Test(arguments: [128 * 1024, 1 << 20])
    func aStoppedReaderHoldsBoundedMemory(window: Int) throws {
        var limits = Limits()
        limits.bufferedBytesPerStream = window
        let world = try TunnelWorld(limits: limits)
        world.prepare = { $0.isReading = false }
        let total = 64 << 20
        let caller = world.call(total: total)
        world.settle()
        let buffers = world.network.core.buffers
        #expect(buffers.leased <= bound(limits))
        // The window is full, and no more than that was taken from the sender: three sockets, two queues, one window.
        #expect(caller.sent >= window && caller.sent < window + 1_000_000)
        world.pass(seconds: 60)
        #expect(buffers.leased <= bound(limits))
        world.applications[0].isReading = true
        world.settle()
        #expect(world.applications[0].received == total && world.applications[0].hasEnded)
        #expect(!world.applications[0].isGarbled && caller.hasEnded)
        #expect(buffers.mostLeased <= bound(limits))
        caller.close()
        #expect(world.end().leased == 0)
    }

    @Test func oneStoppedReaderDoesNotStopTheOthers() throws {
        let world = try TunnelWorld()
        var stopped = true
        world.prepare = {
            $0.isReading = !stopped
            stopped = false
        }
        let slow = world.call(total: 8 << 20)
        world.settle()
        let others = (0..<20).map { _ in world.call(total: 1 << 20) }
        world.settle()
        #expect(world.caller.pool.sessionCount == 1)
        #expect(others.allSatisfy { $0.hasEnded })
        #expect(world.applications.dropFirst().allSatisfy { $0.received == 1 << 20 && !$0.isGarbled })
        #expect(!slow.isFinished)
        world.applications[0].isReading = true
        world.settle()
        #expect(slow.hasEnded && world.applications[0].received == 8 << 20)
        for caller in others + [slow] { caller.close() }
        #expect(world.end().leased == 0)
    }
}
