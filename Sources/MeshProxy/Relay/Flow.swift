internal import MeshRuntime

/// One direction of a relay: what was read from the source and not yet taken by the sink, and how far it has ended.
/// An idle direction holds no memory: a block is leased only while the sink is slower than the source.
struct Flow {
    var pending: UnsafeMutableRawBufferPointer?
    var pendingStart = 0
    var pendingEnd = 0
    /// The source said end of stream.
    var sourceEnded = false
    /// The sink was told, after the last byte.
    var sinkFinished = false
    var bytes: UInt64 = 0

    /// How far one call of `pump` came.
    enum Progress {
        /// Nothing more to do until the source or the sink calls.
        case waiting
        /// The fairness budget is used up; pump again in the next turn.
        case yielded
        /// Everything was delivered and the sink's writing direction is finished.
        case finished
        case sourceFailed(StreamFailure)
        case sinkFailed(StreamFailure)
    }

    /// Bytes moved at most before other connections of the core get their turn.
    static let budget = 1 << 20
    /// One read; what the sink does not take of it must fit one leased block.
    static let readSize = BufferPool.blockBytes

    /// Moves bytes from `source` to `sink` until one of them would block.
    mutating func pump(from source: ByteStream, to sink: ByteStream, on core: Core) -> Progress {
        if sinkFinished { return .finished }
        var moved = 0
        while true {
            switch flushPending(to: sink, on: core) {
            case .done: break
            case .blocked: return .waiting
            case .failed(let failure): return .sinkFailed(failure)
            }
            if sourceEnded {
                sinkFinished = true
                sink.finishWriting()
                return .finished
            }
            if moved >= Flow.budget { return .yielded }
            let space = UnsafeMutableRawBufferPointer(rebasing: core.scratch[..<Flow.readSize])
            switch source.read(into: space) {
            case .wouldBlock: return .waiting
            case .endOfStream: sourceEnded = true
            case .failed(let failure): return .sourceFailed(failure)
            case .bytes(let count):
                moved += count
                let chunk = UnsafeRawBufferPointer(rebasing: space[..<count])
                var taken = 0
                switch sink.write(chunk) {
                case .wrote(let written): taken = written
                case .wouldBlock: break
                case .failed(let failure): return .sinkFailed(failure)
                }
                bytes &+= UInt64(taken)
                if taken < count {
                    keep(UnsafeRawBufferPointer(rebasing: chunk[taken...]), on: core)
                    return .waiting
                }
            }
        }
    }

    private enum Flush {
        case done, blocked
        case failed(StreamFailure)
    }

    private mutating func flushPending(to sink: ByteStream, on core: Core) -> Flush {
        guard let block = pending else { return .done }
        while pendingStart < pendingEnd {
            switch sink.write(UnsafeRawBufferPointer(rebasing: block[pendingStart..<pendingEnd])) {
            case .wrote(let count):
                pendingStart += count
                bytes &+= UInt64(count)
            case .wouldBlock: return .blocked
            case .failed(let failure): return .failed(failure)
            }
        }
        release(to: core)
        return .done
    }

    private mutating func keep(_ rest: UnsafeRawBufferPointer, on core: Core) {
        let block = core.buffers.lease()
        block.copyMemory(from: rest)
        pending = block
        pendingStart = 0
        pendingEnd = rest.count
    }

    /// Gives the block back.
    mutating func release(to core: Core) {
        if let pending { core.buffers.giveBack(pending) }
        pending = nil
        pendingStart = 0
        pendingEnd = 0
    }
}
