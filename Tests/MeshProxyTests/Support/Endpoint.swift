import MeshRuntime

/// A program at the end of a connection: sends a pattern, checks what it gets against another one.
final class Endpoint: StreamOwner {
    let stream: ByteStream
    private let sends: Int
    private let expects: Int
    /// Bytes that it sends in all; may grow.
    var total: Int
    /// The most it gives to one write.
    var chunk = 65_536
    /// Ends its direction after the last byte.
    var finishes = true
    var isReading = true {
        didSet { if isReading { receive() } }
    }
    private(set) var sent = 0
    private(set) var received = 0
    private(set) var isFinished = false
    private(set) var hasEnded = false
    private(set) var failure: StreamFailure?
    private(set) var isOver = false
    /// What came was not what the other side sent.
    private(set) var isGarbled = false
    private static let space = 65_536
    private let space = UnsafeMutableRawBufferPointer.allocate(byteCount: Endpoint.space, alignment: 16)

    init(_ stream: ByteStream, sends: Int, expects: Int, total: Int) {
        self.stream = stream
        self.sends = sends
        self.expects = expects
        self.total = total
        super.init()
        stream.owner = self
    }

    deinit { space.deallocate() }

    var isDone: Bool { failure != nil || isOver || (hasEnded && isFinished) }

    func work() {
        receive()
        send()
    }

    func send() {
        guard !isOver, failure == nil, !isFinished else { return }
        while sent < total {
            let bytes = Pattern.bytes(sends, at: sent, count: min(chunk, total - sent))
            switch stream.write(bytes) {
            case .wrote(let count):
                sent += count
                if count < bytes.count { return }
            case .wouldBlock: return
            case .failed(let why): return failure = why
            }
        }
        if finishes {
            isFinished = true
            stream.finishWriting()
        }
    }

    private func receive() {
        while isReading, !isOver, failure == nil, !hasEnded {
            switch stream.read(into: space) {
            case .bytes(let count):
                if !Pattern.matches(UnsafeRawBufferPointer(rebasing: space[..<count]), expects, at: received) {
                    isGarbled = true
                }
                received += count
            case .wouldBlock: return
            case .endOfStream: hasEnded = true
            case .failed(let why): failure = why
            }
        }
    }

    func reset() {
        if isOver { return }
        isOver = true
        stream.reset()
    }

    func close() {
        if isOver { return }
        isOver = true
        stream.close()
    }

    override func streamIsReadable(_ stream: ByteStream) { receive() }
    override func streamIsWritable(_ stream: ByteStream) { send() }
    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { self.failure = failure }
}
