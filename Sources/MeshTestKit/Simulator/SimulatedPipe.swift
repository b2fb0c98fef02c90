/// One direction of a simulated connection: a ring of bytes, of which the first `arrived` can be read.
///
///     ring   [ . . a a a a f f f . . ]    a: arrived, f: in flight
///                  ^start
final class SimulatedPipe {
    private let ring: UnsafeMutableRawBufferPointer
    private var start = 0
    private(set) var count = 0
    private(set) var arrived = 0
    /// The sender's end of stream follows the last byte.
    var isFinished = false
    /// The reader has seen everything up to the end of stream.
    private(set) var endArrived = false

    init(capacity: Int) { ring = .allocate(byteCount: capacity, alignment: 16) }

    deinit { ring.deallocate() }

    var room: Int { ring.count - count }

    /// Takes `bytes`, which fit.
    func append(_ bytes: UnsafeRawBufferPointer) {
        let end = (start + count) % ring.count
        let first = min(bytes.count, ring.count - end)
        UnsafeMutableRawBufferPointer(rebasing: ring[end..<(end + first)]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: bytes[..<first]))
        if first < bytes.count {
            UnsafeMutableRawBufferPointer(rebasing: ring[..<(bytes.count - first)]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: bytes[first...]))
        }
        count += bytes.count
    }

    /// Gives as many arrived bytes as fit, at most `limit`.
    func take(into buffer: UnsafeMutableRawBufferPointer, atMost limit: Int) -> Int {
        let taken = min(buffer.count, arrived, limit)
        let first = min(taken, ring.count - start)
        UnsafeMutableRawBufferPointer(rebasing: buffer[..<first]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: ring[start..<(start + first)]))
        if first < taken {
            UnsafeMutableRawBufferPointer(rebasing: buffer[first..<taken]).copyMemory(
                from: UnsafeRawBufferPointer(rebasing: ring[..<(taken - first)]))
        }
        start = (start + taken) % ring.count
        count -= taken
        arrived -= taken
        return taken
    }

    var inFlight: Int { count - arrived }

    /// Lets so many bytes arrive, and the end after the last one.
    func deliver(_ bytes: Int) {
        arrived += bytes
        if isFinished, inFlight == 0 { endArrived = true }
    }

    /// The connection broke: what is in flight never arrives.
    func dropInFlight() { count = arrived }

    func clear() {
        count = 0
        arrived = 0
    }
}
