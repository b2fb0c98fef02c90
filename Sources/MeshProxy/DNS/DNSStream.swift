internal import MeshModel
internal import MeshRuntime

/// A TCP connection on which an application asks DNS questions, each behind its length (RFC 1035 §4.2.2, RFC 7766):
/// several may be open at once, and answers come in any order.
final class DNSStream: StreamOwner {
    private let stream: ByteStream
    private let core: Core
    private let service: DNSService
    private let server: SocketAddress?
    private let limits: Limits
    private let ended: (DNSStream) -> Void
    private var input: [UInt8] = []
    private var output: [UInt8] = []
    private var written = 0
    /// Questions without an answer yet.
    private var waiting = 0
    private var inputEnded = false
    private var isEnded = false
    private var isReading = false
    private lazy var idle = IdleTimer(self)

    /// Unread answers that a client may leave lying before its further questions wait.
    private static let outputBytes = 128 * 1024

    /// - Parameter ended: told once, when the connection is over.
    init(
        _ stream: ByteStream, on core: Core, service: DNSService, server: SocketAddress?, limits: Limits,
        ended: @escaping (DNSStream) -> Void
    ) {
        self.stream = stream
        self.core = core
        self.service = service
        self.server = server
        self.limits = limits
        self.ended = ended
        super.init()
        stream.owner = self
    }

    func start() {
        core.schedule(idle, after: limits.dnsStreamIdleNanoseconds)
        read()
    }

    /// Ends it as an abort.
    func abort() { end { $0.cancel() } }

    override func streamIsReadable(_ stream: ByteStream) { read() }

    override func streamIsWritable(_ stream: ByteStream) {
        flush()
        if !isEnded { read() }
    }

    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { end { $0.reset() } }

    fileprivate func idleTimeout() {
        // Who waits for an answer is not idle; questions end by themselves.
        if waiting > 0 { return core.schedule(idle, after: limits.dnsStreamIdleNanoseconds) }
        end { $0.close() }
    }

    private var isBusy: Bool {
        waiting >= limits.dnsWaitersPerQuestion || output.count - written > Self.outputBytes
    }

    /// Answers come from inside `ask` too, so this must bear being called while it runs.
    private func read() {
        guard !isReading else { return }
        isReading = true
        defer { isReading = false }
        while !isEnded {
            takeQuestions()
            if isEnded || isBusy { return }
            if inputEnded { return finishIfDone() }
            let result = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { room in
                let result = stream.read(into: room)
                if case .bytes(let count) = result { input.append(contentsOf: room[..<count]) }
                return result
            }
            switch result {
            case .bytes: core.schedule(idle, after: limits.dnsStreamIdleNanoseconds)
            case .wouldBlock: return
            case .endOfStream: inputEnded = true
            case .failed: return end { $0.reset() }
            }
        }
    }

    private func takeQuestions() {
        var position = 0
        while !isEnded, !isBusy, input.count - position >= 2 {
            let length = Int(input[position]) << 8 | Int(input[position + 1])
            guard input.count - position - 2 >= length else { break }
            let message = Array(input[position + 2..<position + 2 + length])
            position += 2 + length
            waiting += 1
            let asker = StreamAsker(self, server: server)
            // Who sends what is no question speaks another protocol.
            guard message.withUnsafeBytes({ service.ask($0, asker) }) else { return end { $0.reset() } }
        }
        if position > 0 { input.removeFirst(position) }
    }

    fileprivate func answer(_ bytes: [UInt8]) {
        guard !isEnded else { return }
        waiting -= 1
        output.append(UInt8(bytes.count >> 8))
        output.append(UInt8(truncatingIfNeeded: bytes.count))
        output.append(contentsOf: bytes)
        flush()
        if !isEnded { read() }
    }

    private func flush() {
        while written < output.count {
            switch output.withUnsafeBytes({ stream.write(UnsafeRawBufferPointer(rebasing: $0[written...])) }) {
            case .wrote(let count): written += count
            case .wouldBlock: return
            case .failed: return end { $0.reset() }
            }
        }
        output.removeAll(keepingCapacity: true)
        written = 0
        finishIfDone()
    }

    private func finishIfDone() {
        if inputEnded, waiting == 0, output.isEmpty, !isEnded { end { $0.close() } }
    }

    private func end(_ how: (ByteStream) -> Void) {
        guard !isEnded else { return }
        isEnded = true
        core.cancel(idle)
        how(stream)
        ended(self)
    }
}

private final class IdleTimer: Timer {
    private weak var stream: DNSStream?

    init(_ stream: DNSStream) { self.stream = stream }

    override func fire() { stream?.idleTimeout() }
}

private final class StreamAsker: DNSAsker {
    private weak var stream: DNSStream?

    init(_ stream: DNSStream, server: SocketAddress?) {
        self.stream = stream
        super.init(server: server, isStream: true)
    }

    override func answer(_ bytes: [UInt8]) { stream?.answer(bytes) }
}
