import CMeshAllocations
import Glibc
import MeshRuntime
import Testing

extension RawSocketAddress {
    static let loopback = RawSocketAddress.v4(0x7f00_0001, port: 0)
    static let loopback6 = RawSocketAddress.v6(high: 0, low: 1, port: 0)

    func with(port: UInt16) -> RawSocketAddress {
        var address = self
        address.port = port
        return address
    }
}

/// A core turned by the test, a listener on an ephemeral port, and the connections through it.
final class Loopback {
    let core: Core
    private(set) var acceptor: Acceptor
    private let accepted: Box

    private final class Box { var streams: [SocketStream] = [] }

    init(
        _ address: RawSocketAddress = .loopback, options: ListenOptions = ListenOptions(), clock: CoreClock = .system
    ) throws {
        core = try Core(index: 0, clock: clock, seed: 1)
        let accepted = Box()
        self.accepted = accepted
        acceptor = try Acceptor(listener: Socket.listen(address, options: options), on: core) {
            accepted.streams.append($0)
        }
    }

    var address: RawSocketAddress { acceptor.localAddress }

    /// Turns until `condition` holds; false when ten seconds did not bring it.
    func turn(until condition: () -> Bool) -> Bool {
        let start = core.now
        while !condition() {
            if core.now > start + 10_000_000_000 { return false }
            core.turn(waitingAtMost: 100_000_000)
        }
        return true
    }

    /// Turns as long as there is something to do.
    func settle() {
        for _ in 0..<4 { core.turn(waitingAtMost: 1_000_000) }
    }

    func nextAccepted() throws -> SocketStream {
        try #require(turn { !accepted.streams.isEmpty })
        return accepted.streams.removeFirst()
    }

    /// Both ends of one connection, established, with their events recorded.
    func pair(to address: RawSocketAddress? = nil) throws -> (client: Recorded, server: Recorded) {
        let client = Recorded(try SocketStream.connect(to: address ?? self.address, on: core))
        let server = Recorded(try nextAccepted())
        try #require(turn { client.owner.writable == 1 })
        client.owner.writable = 0
        return (client, server)
    }
}

/// A stream and what its owner heard.
struct Recorded {
    let stream: SocketStream
    let owner = Recorder()

    init(_ stream: SocketStream) {
        self.stream = stream
        stream.owner = owner
    }

    func read(_ count: Int = 4096) -> ReadResult {
        withUnsafeTemporaryAllocation(byteCount: count, alignment: 1) { stream.read(into: $0) }
    }

    /// Reads what is there as text, then says what ended it.
    func readText() -> (text: String, end: ReadResult) {
        var bytes: [UInt8] = []
        while true {
            let result = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
                let result = stream.read(into: buffer)
                if case .bytes(let count) = result { bytes += buffer[..<count] }
                return result
            }
            guard case .bytes = result else { return (String(decoding: bytes, as: UTF8.self), result) }
        }
    }

    func write(_ text: String) -> WriteResult {
        var text = text
        return text.withUTF8 { stream.write(UnsafeRawBufferPointer($0)) }
    }

    /// Writes zeros until the socket takes no more, and says how many it took.
    func fill() -> Int {
        var total = 0
        let zeros = [UInt8](repeating: 0, count: 65536)
        while case .wrote(let count) = zeros.withUnsafeBytes({ stream.write($0) }) { total += count }
        return total
    }
}

/// Counts what it hears; `reaction` does something about it.
final class Recorder: StreamOwner {
    var readable = 0
    var writable = 0
    var failures: [StreamFailure] = []
    var reaction: ((ByteStream) -> Void)?

    override func streamIsReadable(_ stream: ByteStream) {
        readable += 1
        reaction?(stream)
    }

    override func streamIsWritable(_ stream: ByteStream) {
        writable += 1
        reaction?(stream)
    }

    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) {
        failures.append(failure)
        reaction?(stream)
    }
}

/// Runs `body` on a thread with a descriptor table of its own, so that tests in other threads neither disturb its
/// count of descriptors nor suffer from it.
func withPrivateDescriptors(_ body: @escaping @Sendable () throws -> Void) throws {
    final class Job: Sendable {
        let body: @Sendable () throws -> Void
        init(_ body: @escaping @Sendable () throws -> Void) { self.body = body }
    }
    final class Outcome { var error: (any Error)? }
    let outcome = Outcome()
    let sharedOutcome = UInt(bitPattern: Unmanaged.passUnretained(outcome).toOpaque())
    let job = Job {
        do {
            try #require(culvert_private_descriptors() == 0)
            try body()
        } catch {
            guard let pointer = UnsafeRawPointer(bitPattern: sharedOutcome) else { return }
            Unmanaged<Outcome>.fromOpaque(pointer).takeUnretainedValue().error = error
        }
    }
    var thread = pthread_t()
    let created = pthread_create(
        &thread, nil,
        { argument in
            guard let argument else { return nil }
            let run = Unmanaged<Job>.fromOpaque(argument).takeRetainedValue().body
            try? run()
            return nil
        }, Unmanaged.passRetained(job).toOpaque())
    try #require(created == 0)
    pthread_join(thread, nil)
    if let error = withExtendedLifetime(outcome, { outcome.error }) { throw error }
}
