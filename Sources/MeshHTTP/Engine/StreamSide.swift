internal import MeshRuntime

/// One stream of a proxied connection, with what was read from it and what of our own words waits to be written to it.
///
/// Input is one pooled block, laid out as `BodyDecoder` wants it: `start..<write` is judged and ready for the other
/// side, `read..<end` was not looked at yet. The block is leased when there is something to read and given back when
/// nothing is left in it, so an idle connection holds none. A full block stops reading: that is the back-pressure.
///
/// Output is one pooled block for heads and small bodies. Content is not copied into it but goes from the input block
/// of the other side straight to the stream, after the output is out.
final class StreamSide {
    let stream: ByteStream
    private let pool: BufferPool

    private var input: UnsafeMutableRawBufferPointer?
    private var start = 0
    private var write = 0
    private var read = 0
    private var end = 0

    private var output: UnsafeMutableRawBufferPointer?
    private var sent = 0
    private var filled = 0

    // Readiness is edge-triggered: true until the stream says "would block".
    private(set) var mayRead = true
    private(set) var mayWrite = true
    /// The peer finished its direction.
    private(set) var hasEnded = false
    private(set) var readFailure: StreamFailure?
    private(set) var writeFailure: StreamFailure?
    private var isFinished = false
    private var isReleased = false

    /// The stream's owner is set by the caller and taken away at the end.
    init(_ stream: ByteStream, pool: BufferPool) {
        self.stream = stream
        self.pool = pool
    }

    deinit {
        precondition(isReleased && input == nil && output == nil, "a side must be closed or reset")
    }

    // MARK: Events

    func becameReadable() { mayRead = true }
    func becameWritable() { mayWrite = true }

    /// The stream broke. What it had received before may still be there, so reading finds out.
    func broke(_ failure: StreamFailure) {
        writeFailure = writeFailure ?? failure
        mayRead = true
    }

    // MARK: Input

    var readyCount: Int { write - start }
    var rawCount: Int { end - read }

    /// Reads once. True when something happened: bytes, the end, a failure.
    func fill() -> Bool {
        guard mayRead, !hasEnded, readFailure == nil, let room = roomForInput() else { return false }
        switch stream.read(into: room) {
        case .bytes(let count):
            precondition(count > 0 && count <= room.count)
            end += count
            return true
        case .wouldBlock:
            mayRead = false
            // A broken stream that has nothing to read will never have.
            readFailure = writeFailure
            return readFailure != nil
        case .endOfStream:
            hasEnded = true
            return true
        case .failed(let failure):
            readFailure = failure
            return true
        }
    }

    /// Nil when the block is full. Moves what is left to the front only when that costs little for what it gains.
    private func roomForInput() -> UnsafeMutableRawBufferPointer? {
        let block = input ?? pool.lease()
        input = block
        if start == write, read == end { (start, write, read, end) = (0, 0, 0, 0) }
        if end == block.count {
            let kept = readyCount + rawCount
            guard kept <= block.count / 2 || (readyCount == 0 && read > 0) else { return nil }
            block.copy(start..<write, to: 0)
            block.copy(read..<end, to: readyCount)
            (start, write, read, end) = (0, readyCount, readyCount, kept)
        }
        return UnsafeMutableRawBufferPointer(rebasing: block[end...])
    }

    /// The bytes not looked at yet.
    func withRaw<R>(_ body: (Span<UInt8>) -> R) -> R {
        guard let input else { return body(Span()) }
        let bytes = UnsafeRawBufferPointer(rebasing: input[read..<end])
        return body(bytes.assumingMemoryBound(to: UInt8.self).span)
    }

    /// Drops bytes that were parsed as a head; nothing may be ready.
    func dropRaw(_ count: Int) {
        precondition(readyCount == 0 && count <= rawCount)
        read += count
        start = read
        write = read
    }

    func decode(_ decoder: inout BodyDecoder) -> BodyDecoder.Status {
        if readyCount == 0 {
            start = read
            write = read
        }
        guard let input else {
            return decoder.isComplete ? .complete : .needMore
        }
        return decoder.decode(input, write: &write, read: &read, end: end)
    }

    func dropReady() { start = write }

    func dropAll() {
        start = end
        write = end
        read = end
    }

    // MARK: Output

    var hasOutput: Bool { sent < filled }

    /// Lets `body` write a head after what waits already; nil from it means that there was no room.
    func putHead(_ body: (UnsafeMutableRawBufferPointer) -> Int?) -> Bool {
        let block = output ?? pool.lease()
        output = block
        guard let count = body(UnsafeMutableRawBufferPointer(rebasing: block[filled...])) else { return false }
        filled += count
        return true
    }

    /// Takes back a head of which nothing was sent.
    func dropOutput() {
        sent = 0
        filled = 0
    }

    /// Writes what waits. True when something went out or the stream broke.
    func flush() -> Bool {
        guard let output, hasOutput else { return false }
        let count = put(UnsafeRawBufferPointer(rebasing: output[sent..<filled]))
        sent += count
        if sent == filled {
            sent = 0
            filled = 0
        }
        return count > 0 || writeFailure != nil
    }

    /// Sends on what is ready, as far as `sink` takes it. True when something went.
    func passReady(to sink: StreamSide) -> Bool {
        guard readyCount > 0, let input, sink.writeFailure == nil else { return false }
        let ready = UnsafeRawBufferPointer(rebasing: input[start..<write])
        if sink.append(ready) {
            start = write
            _ = sink.flush()
            return true
        }
        _ = sink.flush()
        guard !sink.hasOutput else { return false }
        let count = sink.put(ready)
        start += count
        return count > 0 || sink.writeFailure != nil
    }

    /// A small body joins the head that waits, to leave in one write.
    private func append(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard let output, hasOutput, bytes.count <= 16 * 1024, bytes.count <= output.count - filled else {
            return false
        }
        UnsafeMutableRawBufferPointer(rebasing: output[filled...]).copyMemory(from: bytes)
        filled += bytes.count
        return true
    }

    private func put(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard mayWrite, writeFailure == nil else { return 0 }
        precondition(!isFinished)
        switch stream.write(bytes) {
        case .wrote(let count):
            precondition(count > 0 && count <= bytes.count)
            if count < bytes.count { mayWrite = false }
            return count
        case .wouldBlock:
            mayWrite = false
            return 0
        case .failed(let failure):
            writeFailure = failure
            return 0
        }
    }

    func finishWriting() {
        guard !isFinished, writeFailure == nil else { return }
        isFinished = true
        stream.finishWriting()
    }

    // MARK: Release

    /// Gives blocks back that hold nothing.
    func releaseIdleBlocks() {
        if let block = input, start == write, read == end {
            pool.giveBack(block)
            input = nil
            (start, write, read, end) = (0, 0, 0, 0)
        }
        if let block = output, !hasOutput {
            pool.giveBack(block)
            output = nil
        }
    }

    func close() { release { stream.close() } }
    func reset() { release { stream.reset() } }
    func cancel() { release { stream.cancel() } }

    private func release(_ how: () -> Void) {
        guard !isReleased else { return }
        isReleased = true
        dropAll()
        dropOutput()
        releaseIdleBlocks()
        how()
        stream.owner = nil
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func copy(_ range: Range<Int>, to offset: Int) {
        if range.isEmpty || range.lowerBound == offset { return }
        UnsafeMutableRawBufferPointer(rebasing: self[offset..<offset + range.count])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: self[range]))
    }
}
