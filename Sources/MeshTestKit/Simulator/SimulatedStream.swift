public import MeshRuntime

/// One end of a simulated connection (see `SimulatedNetwork`): behaves as `SocketStream` does over TCP, with every
/// freedom the contract leaves it, and notes whoever breaks the contract.
public final class SimulatedStream: ByteStream {
    private unowned let network: SimulatedNetwork
    private let sending: SimulatedPipe
    private let receiving: SimulatedPipe
    weak var peer: SimulatedStream?
    private var isConnecting: Bool
    private var isFinished = false
    private(set) var isReleased = false
    private var readIsOwed = false
    private var writeIsOwed: Bool
    private var failure: StreamFailure?
    private var failureIsTold = false
    /// The peer aborted; it arrives with the next delivery.
    private var comingFailure: StreamFailure?

    init(_ network: SimulatedNetwork, sending: SimulatedPipe, receiving: SimulatedPipe, isConnecting: Bool) {
        self.network = network
        self.sending = sending
        self.receiving = receiving
        self.isConnecting = isConnecting
        writeIsOwed = isConnecting
        super.init()
    }

    /// Bytes the peer sent that nobody has read.
    public var unread: Int { receiving.count }
    /// Both ends are closed, or the other one is forgotten.
    var isGone: Bool { isReleased && (peer?.isReleased ?? true) }

    public override func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        if isReleased { network.violated("read after the end") }
        if buffer.isEmpty { network.violated("read of nothing") }
        if isConnecting || (failure == nil && network.happens(network.weather.wouldBlockPercent)) {
            readIsOwed = true
            return .wouldBlock
        }
        let count = receiving.take(into: buffer, atMost: network.pieceOf(buffer.count))
        if count > 0 { return .bytes(count) }
        if let failure {
            failureIsTold = true
            return .failed(failure)
        }
        if receiving.endArrived { return .endOfStream }
        readIsOwed = true
        return .wouldBlock
    }

    public override func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult {
        if isReleased { network.violated("write after the end") }
        if isFinished { network.violated("write after finishWriting") }
        if bytes.isEmpty { network.violated("write of nothing") }
        if let failure {
            failureIsTold = true
            return .failed(failure)
        }
        let room = min(sending.room, network.pieceOf(bytes.count))
        if isConnecting || room == 0 || network.happens(network.weather.wouldBlockPercent) {
            writeIsOwed = true
            return .wouldBlock
        }
        let count = min(room, bytes.count)
        sending.append(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        if count < bytes.count { writeIsOwed = true }
        return .wrote(count)
    }

    public override func finishWriting() {
        if isReleased { network.violated("finishWriting after the end") }
        if isFinished { network.violated("finishWriting twice") }
        isFinished = true
        sending.isFinished = true
    }

    public override func reset() {
        if isReleased { network.violated("reset after the end") }
        release()
        peer?.breaks(.reset)
    }

    public override func close() {
        if isReleased { network.violated("close after the end") }
        release()
        sending.isFinished = true
    }

    /// The network breaks both ends, as when a host vanishes and TCP finds out.
    public func vanish() {
        breaks(.timedOut)
        peer?.breaks(.timedOut)
    }

    private func release() {
        isReleased = true
        owner = nil
        receiving.clear()
    }

    private func breaks(_ failure: StreamFailure) {
        if !isReleased, comingFailure == nil { comingFailure = failure }
    }

    /// Lets arrive what is on its way and tells the owner; false when nothing is left to happen by itself.
    func step() -> Bool {
        let isCalm = !network.happens(network.weather.delayPercent)
        if isConnecting, isCalm { isConnecting = false }
        if isConnecting { return true }
        if let coming = comingFailure, isCalm, failure == nil {
            failure = coming
            receiving.dropInFlight()
        } else if failure == nil, isCalm {
            receiving.deliver(network.pieceOf(receiving.inFlight))
        }
        // Bytes for a closed end are answered with a reset (RFC 9293 §3.10.7.1).
        if let peer, peer.isReleased, sending.count > 0 {
            sending.clear()
            breaks(.reset)
        }
        let told = tell()
        let isComing = receiving.inFlight > 0 || (receiving.isFinished && !receiving.endArrived)
        return told || (failure == nil && (isComing || comingFailure != nil))
    }

    private func tell() -> Bool {
        var told = false
        let hasNews = failure != nil || receiving.arrived > 0 || receiving.endArrived
        if readIsOwed, hasNews {
            readIsOwed = false
            told = true
            owner?.streamIsReadable(self)
            if isReleased { return true }
        }
        if writeIsOwed, failure != nil || sending.room > 0 {
            writeIsOwed = false
            told = true
            owner?.streamIsWritable(self)
            if isReleased { return true }
        }
        if let failure, !failureIsTold, !told {
            failureIsTold = true
            told = true
            owner?.streamFailed(self, failure)
        }
        return told
    }
}
