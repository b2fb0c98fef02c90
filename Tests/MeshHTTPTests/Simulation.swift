import MeshHTTP
import MeshModel
import MeshRuntime
import Testing

/// Two ends of a simulated connection. Bytes travel when the network says so, in pieces it chooses; an end holds at
/// most `capacity` unread bytes, so a reader that stops stops its writer. Owners are told at the edges only, and never
/// inside a call of theirs.
final class SimulatedStream: ByteStream {
    let network: SimulatedNetwork
    let capacity: Int
    weak var peer: SimulatedStream?
    var inbox: [UInt8] = []
    var inFlight: [UInt8] = []
    var finIsInFlight = false
    var hasEnd = false
    var failure: StreamFailure?
    var isReleased = false
    var isReadBlocked = false
    var isWriteBlocked = false
    /// Calls of `write` that took something.
    private(set) var writes = 0
    private var isFinished = false

    init(_ network: SimulatedNetwork, capacity: Int) {
        self.network = network
        self.capacity = capacity
        super.init()
        network.streams.append(self)
    }

    override func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        precondition(!isReleased && !buffer.isEmpty)
        if let failure { return .failed(failure) }
        if inbox.isEmpty {
            if hasEnd { return .endOfStream }
            isReadBlocked = true
            return .wouldBlock
        }
        let count = min(inbox.count, buffer.count, network.piece())
        for index in 0..<count { buffer[index] = inbox[index] }
        inbox.removeFirst(count)
        return .bytes(count)
    }

    override func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult {
        precondition(!isReleased && !isFinished && !bytes.isEmpty)
        if let failure { return .failed(failure) }
        guard let peer, !peer.isReleased else { return .failed(.reset) }
        let room = peer.capacity - peer.inbox.count - peer.inFlight.count
        if room <= 0 {
            isWriteBlocked = true
            return .wouldBlock
        }
        let count = min(bytes.count, room, network.piece())
        peer.inFlight += bytes[..<count]
        writes += 1
        if count < bytes.count { isWriteBlocked = true }
        return .wrote(count)
    }

    override func finishWriting() {
        precondition(!isReleased && !isFinished)
        isFinished = true
        peer?.finIsInFlight = true
    }

    override func reset() {
        precondition(!isReleased)
        isReleased = true
        owner = nil
        peer?.fail(.reset)
    }

    override func close() {
        precondition(!isReleased)
        isReleased = true
        owner = nil
        peer?.finIsInFlight = true
        // As TCP does: unread input makes a close an abort.
        if !inbox.isEmpty { peer?.fail(.reset) }
    }

    func fail(_ failure: StreamFailure) {
        if isReleased || self.failure != nil { return }
        self.failure = failure
        inbox = []
        inFlight = []
        network.failed.append(self)
    }
}

/// Moves bytes and tells owners. Deterministic from its seed.
final class SimulatedNetwork {
    var chance: Chance
    /// The largest piece of a read, a write or a delivery; nil: whatever there is.
    var largestPiece: Int?
    var streams: [SimulatedStream] = []
    var failed: [SimulatedStream] = []

    init(seed: UInt64) { chance = Chance(seed: seed) }

    func piece() -> Int { largestPiece.map { Int.random(in: 1...$0, using: &chance) } ?? .max }

    func pair(capacity: Int) -> (SimulatedStream, SimulatedStream) {
        let (left, right) = (SimulatedStream(self, capacity: capacity), SimulatedStream(self, capacity: capacity))
        left.peer = right
        right.peer = left
        return (left, right)
    }

    /// One round of deliveries and events; false when nothing happened.
    func step() -> Bool {
        var happened = false
        let broken = failed
        failed = []
        for stream in broken where !stream.isReleased {
            happened = true
            stream.owner?.streamFailed(stream, stream.failure ?? .reset)
        }
        for stream in largestPiece == nil ? streams : streams.shuffled(using: &chance) where !stream.isReleased {
            if deliver(to: stream) { happened = true }
        }
        streams.removeAll { $0.isReleased && ($0.peer?.isReleased ?? true) }
        return happened
    }

    private func deliver(to stream: SimulatedStream) -> Bool {
        var happened = false
        let count = min(stream.inFlight.count, piece())
        if count > 0 {
            stream.inbox += stream.inFlight[..<count]
            stream.inFlight.removeFirst(count)
        }
        if stream.inFlight.isEmpty, stream.finIsInFlight { stream.hasEnd = true }
        if stream.isReadBlocked, !stream.inbox.isEmpty || stream.hasEnd {
            stream.isReadBlocked = false
            happened = true
            stream.owner?.streamIsReadable(stream)
        }
        if stream.isReleased { return true }
        if stream.isWriteBlocked, let peer = stream.peer, peer.inbox.count + peer.inFlight.count < peer.capacity {
            stream.isWriteBlocked = false
            happened = true
            stream.owner?.streamIsWritable(stream)
        }
        return happened || count > 0
    }
}

/// A program at the far end of a simulated connection: a client, or a server that `behavior` makes.
final class Peer: StreamOwner {
    let stream: SimulatedStream
    var received: [UInt8] = []
    var isReading = true
    private(set) var hasEnded = false
    private(set) var failure: StreamFailure?
    private(set) var isClosed = false
    private var outgoing: [UInt8] = []
    private var finishes = false
    private var isFinished = false
    /// Called when something arrived.
    var behavior: (Peer) -> Void = { _ in }

    init(_ stream: SimulatedStream) {
        self.stream = stream
        super.init()
        stream.owner = self
    }

    var text: String { received.text }

    func send(_ text: String) { send([UInt8](text)) }

    func send(_ bytes: [UInt8]) {
        outgoing += bytes
        flush()
    }

    func finish() {
        finishes = true
        flush()
    }

    func close() {
        if isClosed { return }
        isClosed = true
        stream.close()
    }

    func reset() {
        if isClosed { return }
        isClosed = true
        stream.reset()
    }

    func takeReceived() -> String {
        defer { received = [] }
        return text
    }

    func work() {
        if isClosed { return }
        drain()
        flush()
    }

    override func streamIsReadable(_ stream: ByteStream) { drain() }
    override func streamIsWritable(_ stream: ByteStream) { flush() }
    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { self.failure = failure }

    private func drain() {
        guard isReading, !isClosed, failure == nil, !hasEnded else { return }
        var block = [UInt8](repeating: 0, count: 4096)
        var count = 0
        reading: while true {
            switch block.withUnsafeMutableBytes({ stream.read(into: $0) }) {
            case .bytes(let more):
                received += block[..<more]
                count += more
            case .wouldBlock: break reading
            case .endOfStream:
                hasEnded = true
                break reading
            case .failed(let failure):
                self.failure = failure
                break reading
            }
        }
        if count > 0 || hasEnded { behavior(self) }
    }

    private func flush() {
        guard !isClosed, failure == nil, !isFinished else { return }
        while !outgoing.isEmpty {
            switch outgoing.withUnsafeBytes({ stream.write($0) }) {
            case .wrote(let count):
                outgoing.removeFirst(count)
                if !outgoing.isEmpty { return }
            case .wouldBlock: return
            case .failed(let failure):
                self.failure = failure
                return
            }
        }
        if finishes {
            isFinished = true
            stream.finishWriting()
        }
    }
}
