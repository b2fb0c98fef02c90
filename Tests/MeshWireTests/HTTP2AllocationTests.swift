import CMeshAllocations
import MeshWire
import Testing

/// What a core pays for memory: nothing in the steady state.
@Suite struct HTTP2AllocationTests {
    /// Sends zeros without end and counts what it gets.
    private final class Flow: HTTP2Events {
        unowned var session: HTTP2Session!
        var received = 0
        var block = 1_000
        override func data(stream id: Int32, _ bytes: UnsafeRawBufferPointer) {
            received += bytes.count
            session.consumed(stream: id, bytes: bytes.count)
        }
        override func headers(stream id: Int32, _ fields: HeaderBlock, endStream: Bool) {
            if session.role == .server { session.respond(stream: id, headers: okFields, endStream: false) }
        }
        override func outgoingData(stream: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
            let count = min(block, buffer.count)
            UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]).initializeMemory(as: UInt8.self, repeating: 7)
            return .bytes(count, end: false)
        }
    }

    @Test func theSteadyStateAllocatesNothing() throws {
        let memory = HTTP2Memory()
        let (client, server) = (Flow(), Flow())
        let up = HTTP2Session(role: .client, settings: HTTP2Settings(), events: client, memory: memory)
        let down = HTTP2Session(role: .server, settings: HTTP2Settings(), events: server, memory: memory)
        client.session = up
        server.session = down
        server.block = 16_384
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65_536, alignment: 16)
        defer { buffer.deallocate() }
        for _ in 0..<8 { _ = try up.request(connectFields) }

        func pass(_ turns: Int) {
            for _ in 0..<turns {
                let first = up.produce(into: buffer)
                _ = down.receive(UnsafeRawBufferPointer(rebasing: buffer[..<first]), now: 1)
                let second = down.produce(into: buffer)
                _ = up.receive(UnsafeRawBufferPointer(rebasing: buffer[..<second]), now: 1)
            }
        }
        pass(500)
        let before = culvert_allocations_count()
        let received = server.received + client.received
        pass(2_000)
        let allocations = culvert_allocations_count() - before
        #expect(allocations == 0)
        // Many times the windows: updates of both kinds went both ways.
        #expect(server.received + client.received - received > 64 << 20)
        #expect(up.failure == nil && down.failure == nil)
    }

    @Test func newSessionsReuseTheMemoryOfOldOnes() throws {
        let memory = HTTP2Memory()
        func session() {
            let session = HTTP2Session(role: .client, settings: HTTP2Settings(), events: HTTP2Events(), memory: memory)
            _ = try? session.request(connectFields)
            _ = drain(session)
        }
        session()
        #expect(memory.liveBlocks == 0)
        let kept = memory.keptBytes
        #expect(kept > 16_384)
        for _ in 0..<10 { session() }
        #expect(memory.liveBlocks == 0 && memory.keptBytes == kept)
    }

    @Test func freeBlocksAreKeptWithinTheLimit() {
        let memory = HTTP2Memory(keeping: 1_000)
        for _ in 0..<3 {
            let session = HTTP2Session(role: .server, settings: HTTP2Settings(), events: HTTP2Events(), memory: memory)
            _ = drain(session)
        }
        #expect(memory.liveBlocks == 0 && memory.keptBytes <= 1_000)
    }
}
