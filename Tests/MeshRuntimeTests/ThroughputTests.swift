import CMeshAllocations
import Glibc
import MeshRuntime
import Testing

/// Sends a repeating pattern until it has sent enough, then finishes; checks what comes back.
private final class Source: StreamOwner {
    static let pattern = (0..<65_521).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }

    let total: Int
    let chunk: Int
    var sent = 0
    var received = 0
    var isCorrect = true
    var result: ReadResult?
    private let buffer: UnsafeMutableRawBufferPointer
    private let pattern: UnsafeMutableRawPointer

    init(total: Int, chunk: Int) {
        self.total = total
        self.chunk = chunk
        buffer = .allocate(byteCount: chunk, alignment: 16)
        // Twice, so that any chunk is one piece.
        pattern = .allocate(byteCount: 2 * Self.pattern.count, alignment: 16)
        pattern.copyMemory(from: Self.pattern + Self.pattern, byteCount: 2 * Self.pattern.count)
    }

    deinit {
        buffer.deallocate()
        pattern.deallocate()
    }

    override func streamIsWritable(_ stream: ByteStream) {
        while sent < total {
            let start = sent % Self.pattern.count
            let count = min(chunk, total - sent)
            guard
                case .wrote(let wrote) = stream.write(UnsafeRawBufferPointer(start: pattern + start, count: count))
            else { return }
            sent += wrote
            if wrote < count { return }
        }
        stream.finishWriting()
    }

    override func streamIsReadable(_ stream: ByteStream) {
        while true {
            let read = stream.read(into: buffer)
            guard case .bytes(let count) = read else {
                if read != .wouldBlock { result = read }
                return
            }
            let start = received % Self.pattern.count
            if let got = buffer.baseAddress, memcmp(pattern + start, got, count) != 0 { isCorrect = false }
            received += count
        }
    }

    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { result = .failed(failure) }
}

/// Writes back what it reads through one buffer; stops reading while the other side does not take it.
private final class Echo: StreamOwner {
    private let buffer: UnsafeMutableRawBufferPointer
    private var pending = 0..<0
    private var hasEnded = false
    var calls = 0

    init(chunk: Int) { buffer = .allocate(byteCount: chunk, alignment: 16) }

    deinit { buffer.deallocate() }

    override func streamIsReadable(_ stream: ByteStream) { work(stream) }
    override func streamIsWritable(_ stream: ByteStream) { work(stream) }
    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { stream.reset() }

    func work(_ stream: ByteStream) {
        calls += 1
        while true {
            while !pending.isEmpty {
                guard case .wrote(let count) = stream.write(UnsafeRawBufferPointer(rebasing: buffer[pending])) else {
                    return
                }
                pending = pending.lowerBound + count..<pending.upperBound
            }
            switch stream.read(into: buffer) {
            case .bytes(let count): pending = 0..<count
            case .wouldBlock: return
            case .endOfStream: return stream.close()
            case .failed: return stream.reset()
            }
        }
    }
}

@Suite struct ThroughputTests {
    /// A source and an echo on one core, driven by hand.
    private struct Run {
        let loopback: Loopback
        let client: SocketStream
        let server: SocketStream
        let source: Source
        let echo: Echo

        init(total: Int, chunk: Int) throws {
            loopback = try Loopback()
            let (client, server) = try loopback.pair()
            self.client = client.stream
            self.server = server.stream
            source = Source(total: total, chunk: chunk)
            echo = Echo(chunk: chunk - 2)
            self.client.owner = source
            self.server.owner = echo
        }

        func begin() {
            echo.work(server)
            source.streamIsReadable(client)
            source.streamIsWritable(client)
        }
    }

    @Test(arguments: [4_093, 65_521])
    func echoesManyBytesThroughSmallBuffers(chunk: Int) throws {
        let total = 64 << 20
        let run = try Run(total: total, chunk: chunk)
        run.begin()
        #expect(run.loopback.turn { run.source.result != nil })
        #expect(run.source.result == .endOfStream)
        #expect(run.source.received == total)
        #expect(run.source.isCorrect)
        run.client.close()
        #expect(run.loopback.core.registered == 1)
    }

    @Test func nothingIsAllocatedOnTheSteadyPath() throws {
        let run = try Run(total: .max, chunk: 16_384)
        let core = run.loopback.core
        final class Idle: Timer {}
        final class Flush: DeferredWork {}
        let timer = Idle()
        let other = Idle()
        let work = Flush()
        run.begin()
        func relay(turns: Int) {
            for turn in 0..<turns {
                core.schedule(timer, after: 300_000_000_000)
                core.schedule(other, after: UInt64(turn % 3) * 1_000)
                if turn.isMultiple(of: 5) { core.cancel(other) }
                core.atEndOfTurn(work)
                let block = core.buffers.lease()
                core.turn(waitingAtMost: 1_000_000)
                core.buffers.giveBack(block)
            }
        }
        relay(turns: 50)
        let received = run.source.received
        let before = culvert_allocations_count()
        relay(turns: 500)
        let allocations = culvert_allocations_count() - before
        #expect(allocations == 0)
        #expect(run.source.received > received + 4 << 20)
        run.client.reset()
    }

    /// The hook counts: otherwise the test above would prove nothing.
    @Test func theAllocationHookCounts() {
        let count = culvert_allocations_count()
        let bytes = culvert_allocations_bytes()
        let process = culvert_allocations_count_of_process()
        let block = UnsafeMutableRawPointer.allocate(byteCount: 1000, alignment: 16)
        let aligned = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
        #expect(UInt(bitPattern: aligned) % 4096 == 0)
        block.deallocate()
        aligned.deallocate()
        #expect(culvert_allocations_count() >= count + 2)
        #expect(culvert_allocations_bytes() >= bytes + 9192)
        #expect(culvert_allocations_count_of_process() >= process + 2)
    }
}
