import COpenSSL

/// The two ends of a session's wire, as OpenSSL sees them through our BIO: it reads what the caller brought and
/// writes where the caller has room.
///
/// The regions are the caller's and only valid while a call of `TLSSession` is running; outside of one both are empty.
/// What OpenSSL wants to say when there is no room goes to `spill`: a handshake flight larger than the caller's buffer,
/// an answer to a KeyUpdate that came in while reading. It always goes out before anything newer, because records
/// must keep their order. It is bounded: a peer that makes us talk without listening loses the session.
struct MemoryWire {
    var input: UnsafeRawPointer?
    var inputCount = 0
    var output: UnsafeMutableRawPointer?
    var outputRoom = 0

    private var spill: UnsafeMutableRawPointer?
    private var spillStart = 0
    private var spillEnd = 0
    private var spillCapacity = 0

    /// Messages of the handshake layer since the last application data, see `TLSSession.idleMessageLimit`.
    var idleMessages = 0
    var isEstablished = false
    /// A write found the spill at its limit.
    var isOverflowing = false

    /// A server's flight: our own chain and a little more, bounded by what `SVID` and the library accept.
    static let handshakeSpillLimit = 256 * 1024
    /// A record's tail that a KeyUpdate pushed out, and a few KeyUpdate answers of 27 bytes.
    static let establishedSpillLimit = 4 * 1024

    var pending: Int { spillEnd - spillStart }

    mutating func begin(output region: UnsafeMutableRawBufferPointer) {
        output = region.baseAddress
        outputRoom = region.count
        if pending > 0 { drain() }
    }

    mutating func begin(input region: UnsafeRawBufferPointer) {
        input = region.baseAddress
        inputCount = region.count
    }

    mutating func end() {
        input = nil
        inputCount = 0
        output = nil
        outputRoom = 0
    }

    /// Takes what OpenSSL read; 0 when there is nothing.
    mutating func read(into destination: UnsafeMutableRawPointer, _ count: Int) -> Int {
        let taken = min(count, inputCount)
        guard taken > 0, let source = input else { return 0 }
        destination.copyMemory(from: source, byteCount: taken)
        input = source + taken
        inputCount -= taken
        return taken
    }

    /// Takes all of `bytes`, or nothing when the spill is at its limit.
    mutating func write(_ bytes: UnsafeRawPointer, _ count: Int) -> Bool {
        let direct = pending == 0 ? min(count, outputRoom) : 0
        let rest = count - direct
        if rest > 0 {
            guard reserve(rest) else { return false }
        }
        if direct > 0, let destination = output {
            destination.copyMemory(from: bytes, byteCount: direct)
            output = destination + direct
            outputRoom -= direct
        }
        if rest > 0, let spill {
            (spill + spillEnd).copyMemory(from: bytes + direct, byteCount: rest)
            spillEnd += rest
        }
        return true
    }

    /// Makes room for `count` more bytes at the end of the spill.
    @inline(never)
    private mutating func reserve(_ count: Int) -> Bool {
        let limit = isEstablished ? MemoryWire.establishedSpillLimit : MemoryWire.handshakeSpillLimit
        guard pending + count <= limit else {
            isOverflowing = true
            return false
        }
        guard spillEnd + count > spillCapacity else { return true }
        let capacity = max(1024, 2 * (pending + count))
        let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
        let kept = pending
        if let spill {
            larger.copyMemory(from: spill + spillStart, byteCount: kept)
            spill.deallocate()
        }
        spill = larger
        spillCapacity = capacity
        spillStart = 0
        spillEnd = kept
        return true
    }

    @inline(never)
    private mutating func drain() {
        guard let spill, let destination = output else { return }
        let moved = min(pending, outputRoom)
        destination.copyMemory(from: spill + spillStart, byteCount: moved)
        output = destination + moved
        outputRoom -= moved
        spillStart += moved
        if pending == 0 { release() }
    }

    mutating func release() {
        spill?.deallocate()
        spill = nil
        spillStart = 0
        spillEnd = 0
        spillCapacity = 0
    }
}

/// The BIO over `MemoryWire`. Its data pointer is the session's wire, which the session frees after the SSL.
enum MemoryBIO {
    // Written once, before its first use, and only read afterwards; libcrypto keeps methods for the process's life.
    nonisolated(unsafe) static let method: OpaquePointer = {
        guard let method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "culvert memory wire") else {
            fatalError("no memory for a BIO method")
        }
        BIO_meth_set_read_ex(method, readWire)
        BIO_meth_set_write_ex(method, writeWire)
        BIO_meth_set_ctrl(method, controlWire)
        return method
    }()

    static func make(over wire: UnsafeMutablePointer<MemoryWire>) -> OpaquePointer? {
        guard let bio = BIO_new(method) else { return nil }
        BIO_set_data(bio, wire)
        BIO_set_init(bio, 1)
        return bio
    }
}

private let retryFlags = BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_IO_SPECIAL | BIO_FLAGS_SHOULD_RETRY

private func readWire(
    _ bio: OpaquePointer?, _ bytes: UnsafeMutablePointer<CChar>?, _ count: Int, _ taken: UnsafeMutablePointer<Int>?
) -> Int32 {
    guard let wire = BIO_get_data(bio)?.assumingMemoryBound(to: MemoryWire.self), let bytes, let taken else {
        return -1
    }
    BIO_clear_flags(bio, retryFlags)
    taken.pointee = wire.pointee.read(into: bytes, count)
    guard taken.pointee == 0 else { return 1 }
    // Not the end: the caller brings more later. The end of input is not told to OpenSSL, see `endOfInput`.
    BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
    return -1
}

private func writeWire(
    _ bio: OpaquePointer?, _ bytes: UnsafePointer<CChar>?, _ count: Int, _ taken: UnsafeMutablePointer<Int>?
) -> Int32 {
    guard let wire = BIO_get_data(bio)?.assumingMemoryBound(to: MemoryWire.self), let bytes, let taken else {
        return -1
    }
    BIO_clear_flags(bio, retryFlags)
    guard wire.pointee.write(bytes, count) else {
        taken.pointee = 0
        return -1
    }
    taken.pointee = count
    return 1
}

private func controlWire(
    _ bio: OpaquePointer?, _ command: Int32, _ number: Int, _ pointer: UnsafeMutableRawPointer?
) -> Int {
    // Everything written is already where it belongs; every other question has the answer 0 of BIO_ctrl(3).
    command == BIO_CTRL_FLUSH ? 1 : 0
}
