public import MeshRuntime

/// Stands between a stream and its owner and holds the stream to the contract of `ByteStream`: no call back inside a
/// call of the owner, readiness told once after it was asked for, no byte after the end, nothing after `close`.
public final class CheckedStream: ByteStream {
    private let inner: ByteStream
    private let network: SimulatedNetwork
    private lazy var relay = Relay(self)
    private var depth = 0
    private var readIsOwed = false
    private var writeIsOwed = false
    private var sawEnd = false
    private var sawFailure = false
    private var isOver = false

    public init(_ inner: ByteStream, in network: SimulatedNetwork) {
        self.inner = inner
        self.network = network
        super.init()
        inner.owner = relay
    }

    public override func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        let result = inside { inner.read(into: buffer) }
        switch result {
        case .bytes(let count):
            if sawEnd || sawFailure { network.violated("bytes after the end") }
            if count < 1 || count > buffer.count { network.violated("read gave \(count) of \(buffer.count)") }
        case .wouldBlock:
            if sawEnd || sawFailure { network.violated("a stream that ended blocks") }
            readIsOwed = true
        case .endOfStream: sawEnd = true
        case .failed: sawFailure = true
        }
        return result
    }

    public override func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult {
        let result = inside { inner.write(bytes) }
        switch result {
        case .wrote(let count):
            if count < 1 || count > bytes.count { network.violated("write took \(count) of \(bytes.count)") }
            if count < bytes.count { writeIsOwed = true }
        case .wouldBlock: writeIsOwed = true
        case .failed: break
        }
        return result
    }

    public override func finishWriting() { inside { inner.finishWriting() } }

    public override func reset() {
        inside { inner.reset() }
        isOver = true
        owner = nil
    }

    public override func cancel() {
        inside { inner.cancel() }
        isOver = true
        owner = nil
    }

    public override func close() {
        inside { inner.close() }
        isOver = true
        owner = nil
    }

    private func inside<Result>(_ call: () -> Result) -> Result {
        if isOver { network.violated("a call after the end") }
        depth += 1
        defer { depth -= 1 }
        return call()
    }

    private func check(_ word: String) -> Bool {
        if depth > 0 { network.violated("\(word) inside a call of the owner") }
        if isOver { network.violated("\(word) after the end") }
        return !isOver
    }

    fileprivate func readable() {
        guard check("streamIsReadable") else { return }
        if !readIsOwed { network.violated("readable told without being asked") }
        readIsOwed = false
        owner?.streamIsReadable(self)
    }

    fileprivate func writable() {
        guard check("streamIsWritable") else { return }
        if !writeIsOwed { network.violated("writable told without being asked") }
        writeIsOwed = false
        owner?.streamIsWritable(self)
    }

    fileprivate func failed(_ failure: StreamFailure) {
        guard check("streamFailed") else { return }
        if sawFailure { network.violated("a failure told twice") }
        owner?.streamFailed(self, failure)
    }
}

private final class Relay: StreamOwner {
    private unowned let checked: CheckedStream

    init(_ checked: CheckedStream) { self.checked = checked }

    override func streamIsReadable(_ stream: ByteStream) { checked.readable() }
    override func streamIsWritable(_ stream: ByteStream) { checked.writable() }
    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { checked.failed(failure) }
}
