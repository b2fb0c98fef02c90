import CMeshSystem

/// A TCP connection on a core.
///
/// The descriptor is registered once for every edge and the owner reads and writes directly, so this object keeps what
/// the edges said:
///
/// - `readArmed`, `writeArmed`: the owner got `wouldBlock` (or a short write) and is owed one call. An edge without an
///   armed flag is not lost: the owner has not come to the end yet and will find the bytes itself.
/// - `drained`, `full`: a short read or write said that the socket has no more, and no edge came since. The next call
///   is answered without asking the kernel, which saves one of the two reads of every small exchange. A short read
///   proves nothing once the peer's FIN or reset may be behind it, as no edge will follow those: `sawHangup` stops it.
/// - `failure`: the kernel forgets a socket's error once it is told, after which reads would look like a clean end.
///   Bytes that came before the error can still be read; then the failure repeats for ever.
///
/// An edge that is already in the batch being dispatched when the owner comes to the end of the bytes is told all the
/// same: the owner may be called for nothing then, and reads `wouldBlock` again. It is never left uncalled.
///
/// A reset that comes while the owner neither reads nor writes (a relay paused by its other side) reaches it as
/// `streamFailed`, at most once; what had arrived before can still be read until the stream is closed.
public final class SocketStream: ByteStream {
    private struct Flags: OptionSet {
        let rawValue: UInt16

        static let connecting = Flags(rawValue: 1 << 0)
        static let readArmed = Flags(rawValue: 1 << 1)
        static let writeArmed = Flags(rawValue: 1 << 2)
        static let drained = Flags(rawValue: 1 << 3)
        static let full = Flags(rawValue: 1 << 4)
        static let sawHangup = Flags(rawValue: 1 << 5)
        static let ended = Flags(rawValue: 1 << 6)
        /// The owner has called `read` since this was last taken away.
        static let wasRead = Flags(rawValue: 1 << 7)
        /// The owner knows of the failure.
        static let failureTold = Flags(rawValue: 1 << 8)
        static let finishWhenConnected = Flags(rawValue: 1 << 9)
        static let isRegistered = Flags(rawValue: 1 << 10)

        // Sets by name: a literal of several members is an array first, on the heap unless the optimiser removes it.
        static let readWouldBlock: Flags = [.drained, .connecting]
        static let writeWouldBlock: Flags = [.full, .connecting]
        static let fullAndArmed: Flags = [.full, .writeArmed]
        static let wasReadOrTold: Flags = [.wasRead, .failureTold]
        static let attempt: Flags = [.connecting, .readArmed, .writeArmed]
        static let nothingUnread: Flags = [.ended, .drained, .connecting]
    }

    private let core: Core
    private var descriptor: Int32
    private var token: UInt64 = 0
    private var flags: Flags = []
    private var failure: StreamFailure?
    private var knownLocal: RawSocketAddress?
    private var knownRemote: RawSocketAddress?

    /// Takes over a nonblocking socket, connected or on its way.
    /// - Parameter connecting: the connection is still being made: the owner hears `streamIsWritable` when it stands
    ///   and `streamFailed` when it fails. Reads and writes before that would block.
    public init(adopting descriptor: Int32, on core: Core, connecting: Bool = false) {
        self.core = core
        self.descriptor = descriptor
        super.init()
        if connecting { flags = [.connecting, .writeArmed] }
        switch core.register(self, descriptor: descriptor) {
        case .success(let token):
            self.token = token
            flags.insert(.isRegistered)
        case .failure(let error):
            // No event will ever tell the owner, so a piece of work does.
            failure = StreamFailure(errno: error.code)
            core.atEndOfTurn(FailureNotice(self))
        }
    }

    /// - Parameter destination: where the peer was going, when that is not the socket's own address.
    convenience init(
        accepted descriptor: Int32, from remote: RawSocketAddress, to destination: RawSocketAddress?, on core: Core
    ) {
        self.init(adopting: descriptor, on: core)
        knownRemote = remote
        knownLocal = destination
    }

    /// Starts a connection; see `connecting` of `init(adopting:on:connecting:)` for what the owner hears.
    public static func connect(
        to remote: RawSocketAddress, options: ConnectOptions = ConnectOptions(), on core: Core
    ) throws(SystemError) -> SocketStream {
        let stream = SocketStream(
            adopting: try Socket.connect(to: remote, options: options), on: core, connecting: true)
        stream.knownRemote = remote
        return stream
    }

    deinit { release() }

    // MARK: State

    public var isOpen: Bool { descriptor >= 0 }
    public var isConnecting: Bool { flags.contains(.connecting) }
    /// The peer has aborted the connection, whether or not the owner was told; bytes from before may still be there.
    public var peerHasReset: Bool { failure == .reset }

    /// Our end. Of a stream that came through a transparent or translated listener: whom the peer wanted to reach.
    /// All zeros once the stream is closed, unless it was asked for before.
    public var localAddress: RawSocketAddress {
        if let knownLocal { return knownLocal }
        var address = mesh_address()
        guard mesh_socket_local(descriptor, &address) == 0 else { return .none }
        let local = RawSocketAddress(address)
        knownLocal = local
        return local
    }

    /// The peer's end; all zeros when it is gone and was not asked for before.
    public var remoteAddress: RawSocketAddress {
        if let knownRemote { return knownRemote }
        var address = mesh_address()
        guard mesh_socket_peer(descriptor, &address) == 0 else { return .none }
        let remote = RawSocketAddress(address)
        knownRemote = remote
        return remote
    }

    // MARK: Bytes

    public override func read(into buffer: UnsafeMutableRawBufferPointer) -> ReadResult {
        assert(!buffer.isEmpty, "a read of nothing says nothing")
        if let early = beforeRead() { return early }
        return afterRead(mesh_socket_receive(descriptor, buffer.baseAddress, buffer.count), of: buffer.count)
    }

    /// Reads into `first` and then `second` with one system call.
    public func read(
        into first: UnsafeMutableRawBufferPointer, _ second: UnsafeMutableRawBufferPointer
    ) -> ReadResult {
        assert(!first.isEmpty || !second.isEmpty, "a read of nothing says nothing")
        if let early = beforeRead() { return early }
        let result = mesh_socket_receive_two(
            descriptor, first.baseAddress, first.count, second.baseAddress, second.count)
        return afterRead(result, of: first.count + second.count)
    }

    public override func write(_ bytes: UnsafeRawBufferPointer) -> WriteResult {
        assert(!bytes.isEmpty, "a write of nothing says nothing")
        if let early = beforeWrite() { return early }
        return afterWrite(mesh_socket_send(descriptor, bytes.baseAddress, bytes.count), of: bytes.count)
    }

    /// Writes `first` and then `second` with one system call.
    public func write(_ first: UnsafeRawBufferPointer, _ second: UnsafeRawBufferPointer) -> WriteResult {
        assert(!first.isEmpty || !second.isEmpty, "a write of nothing says nothing")
        if let early = beforeWrite() { return early }
        let result = mesh_socket_send_two(
            descriptor, first.baseAddress, first.count, second.baseAddress, second.count)
        return afterWrite(result, of: first.count + second.count)
    }

    private func beforeRead() -> ReadResult? {
        flags.insert(.wasRead)
        if flags.contains(.ended) { return .endOfStream }
        if flags.isDisjoint(with: .readWouldBlock) { return nil }
        flags.insert(.readArmed)
        return .wouldBlock
    }

    private func afterRead(_ result: Int, of count: Int) -> ReadResult {
        if result > 0 {
            if result < count && !flags.contains(.sawHangup) { flags.insert(.drained) }
            return .bytes(result)
        }
        if result == Int(-Errno.again) {
            // A failure taken from the socket leaves nothing behind that an edge would announce.
            if failure == nil {
                flags.insert(.readArmed)
                return .wouldBlock
            }
        } else if result == 0 && failure == nil {
            flags.insert(.ended)
            return .endOfStream
        }
        return .failed(told(result < 0 ? Int32(-result) : 0))
    }

    private func beforeWrite() -> WriteResult? {
        if let failure {
            flags.insert(.failureTold)
            return .failed(failure)
        }
        if flags.isDisjoint(with: .writeWouldBlock) { return nil }
        flags.insert(.writeArmed)
        return .wouldBlock
    }

    private func afterWrite(_ result: Int, of count: Int) -> WriteResult {
        if result == count { return .wrote(result) }
        if result > 0 {
            flags.formUnion(.fullAndArmed)
            return .wrote(result)
        }
        if result == Int(-Errno.again) {
            flags.formUnion(.fullAndArmed)
            return .wouldBlock
        }
        return .failed(told(Int32(-result)))
    }

    /// The failure to report now and from now on: the first one seen, else `errno`.
    private func told(_ errno: Int32) -> StreamFailure {
        let reported = failure ?? StreamFailure(errno: errno)
        failure = reported
        flags.insert(.failureTold)
        return reported
    }

    // MARK: Ends

    public override func finishWriting() {
        if flags.contains(.connecting) {
            // Linux takes a shutdown before the handshake for giving up.
            flags.insert(.finishWhenConnected)
            return
        }
        _ = mesh_socket_finish_writing(descriptor)
    }

    public override func reset() {
        if descriptor >= 0 { _ = mesh_socket_linger_zero(descriptor) }
        release()
        owner = nil
    }

    /// Delivers what was written as far as TCP can: bytes the peer sends after this are answered with a reset, which
    /// may overtake it. Who answers while the peer still sends (an early HTTP error) finishes writing first, reads on
    /// to the peer's end and closes then.
    public override func close() {
        discardUnread()
        if descriptor >= 0 { _ = mesh_socket_linger_off(descriptor) }
        release()
        owner = nil
    }

    /// Linux answers a close with bytes left unread by a reset, which destroys what we wrote and the peer has not read
    /// (RFC 9293 §3.10.4, RFC 2525 §2.17). So what is there now goes first; what comes later is the peer's affair.
    private func discardUnread() {
        guard descriptor >= 0, failure == nil, flags.isDisjoint(with: .nothingUnread) else { return }
        // More than a receive buffer holds under the default limits (tcp_rmem).
        _ = mesh_socket_discard(descriptor, 8 << 20)
    }

    private func release() {
        guard descriptor >= 0 else { return }
        if flags.contains(.isRegistered) { core.close(descriptor, token: token) } else { mesh_close(descriptor) }
        descriptor = -1
    }

    // MARK: Events

    /// An edge from the kernel. Every call of the owner may close this stream.
    func becameReady(_ ready: UInt32) {
        if ready & mesh_ready_error != 0 && failure == nil { takeFailure() }
        if flags.contains(.connecting) && !finishConnecting(ready) { return }
        let isBroken = ready & (mesh_ready_error | mesh_ready_hangup) != 0
        if isBroken || ready & mesh_ready_peer_finished != 0 { flags.insert(.sawHangup) }
        flags.remove(.wasRead)
        if isBroken || ready & (mesh_ready_input | mesh_ready_peer_finished) != 0 {
            flags.remove(.drained)
            if flags.contains(.readArmed) {
                flags.remove(.readArmed)
                owner?.streamIsReadable(self)
                if descriptor < 0 { return }
            }
        }
        if isBroken || ready & mesh_ready_output != 0 {
            flags.remove(.full)
            if flags.contains(.writeArmed) {
                flags.remove(.writeArmed)
                owner?.streamIsWritable(self)
                if descriptor < 0 { return }
            }
        }
        // An owner that reads now will come to the failure itself, after the bytes before it.
        if failure != nil && flags.isDisjoint(with: .wasReadOrTold) { tellFailure() }
    }

    /// True when the connection stands.
    private func finishConnecting(_ ready: UInt32) -> Bool {
        if failure != nil {
            flags.subtract(.attempt)
            tellFailure()
            return false
        }
        guard ready & mesh_ready_output != 0 else { return false }
        flags.remove(.connecting)
        if flags.contains(.finishWhenConnected) { _ = mesh_socket_finish_writing(descriptor) }
        return true
    }

    private func takeFailure() {
        let errno = mesh_socket_take_error(descriptor)
        if errno != 0 { failure = StreamFailure(errno: errno) }
    }

    fileprivate func tellFailure() {
        guard descriptor >= 0, let failure, !flags.contains(.failureTold) else { return }
        flags.insert(.failureTold)
        owner?.streamFailed(self, failure)
    }
}

/// Tells of a failure that no event will tell of.
private final class FailureNotice: DeferredWork {
    private let stream: SocketStream

    init(_ stream: SocketStream) { self.stream = stream }

    override func perform() { stream.tellFailure() }
}
