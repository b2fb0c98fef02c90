import CMeshAllocations
import MeshModel
import MeshRuntime
import MeshTestKit
import Testing

@testable import MeshProxy

/// What a core pays for memory while it relays: nothing, whatever the size of the messages.
@Suite struct AllocationTests {
    /// Writes a message whenever there is room; reads and forgets.
    private final class Pump: StreamOwner {
        let stream: ByteStream
        private let message: UnsafeMutableRawBufferPointer
        private let space = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
        private(set) var received = 0
        var failure: StreamFailure?

        init(_ stream: ByteStream, message: Int) {
            self.stream = stream
            self.message = .allocate(byteCount: message, alignment: 16)
            self.message.initializeMemory(as: UInt8.self, repeating: 7)
            super.init()
            stream.owner = self
        }

        deinit {
            message.deallocate()
            space.deallocate()
        }

        func receive() {
            while case .bytes(let count) = stream.read(into: space) { received += count }
        }

        func send() {
            _ = stream.write(UnsafeRawBufferPointer(message))
        }

        override func streamIsReadable(_ stream: ByteStream) { receive() }
        override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { self.failure = failure }
    }

    /// Allocations of `messages` turns that carry one message each way, after as many to warm up.
    private func cost(_ network: SimulatedNetwork, _ left: Pump, _ right: Pump, messages: Int) -> (Int, moved: Int) {
        func pass() {
            for _ in 0..<messages {
                left.send()
                right.send()
                network.step()
                left.receive()
                right.receive()
            }
        }
        pass()
        let moved = left.received + right.received
        let before = culvert_allocations_count()
        pass()
        return (Int(culvert_allocations_count() - before), left.received + right.received - moved)
    }

    @Test(arguments: [128, 65_536])
    func aRelayAllocatesNothing(message: Int) throws {
        let network = try SimulatedNetwork(seed: 1)
        let hub = TestHub(core: network.core)
        let (client, downstream) = network.pair(capacity: 200_000)
        let (upstream, server) = network.pair(capacity: 200_000)
        let (left, right) = (Pump(client, message: message), Pump(server, message: message))
        let connection = TestConnection(hub: hub, downstream: downstream)
        connection.relay(with: upstream)
        left.receive()
        right.receive()
        let (allocations, moved) = cost(network, left, right, messages: 2_000)
        #expect(allocations == 0)
        #expect(moved > 2_000 * message)
        connection.terminate(.drain)
    }

    @Test(arguments: [128, 65_536])
    func aRelayThroughATunnelAllocatesNothing(message: Int) throws {
        let world = try TunnelWorld()
        let (end, downstream) = world.network.pair(capacity: 200_000)
        let left = Pump(end, message: message)
        var right: Pump?
        world.far.answer = { request, _ in
            let (upstream, server) = world.network.pair(capacity: 200_000)
            right = Pump(server, message: message)
            TestConnection(hub: world.far, downstream: request.stream, request: request).relay(with: upstream)
        }
        let connection = TestConnection(hub: world.near, downstream: downstream)
        connection.dial = world.caller.dial(world.tunnel(), client: nil, service: nil) { connection.dialled($0) }
        world.settle()
        let (allocations, moved) = cost(world.network, left, try #require(right), messages: 2_000)
        #expect(allocations == 0)
        #expect(moved > 1_000 * message)
        left.stream.close()
        right?.stream.close()
        let end2 = world.end()
        #expect(end2.leased == 0)
    }
}
