import COpenSSL
public import MeshModel

/// One TLS 1.3 connection as a byte machine: bytes in, bytes out, no I/O and no waiting. Belongs to one core.
///
/// Life: `handshake` until it says `done`; then `open` what arrives and `seal` what leaves, in any order; `closeNotify`
/// when nothing more leaves; `endOfInput` when the transport ended. Every call takes what it can and says how far it got.
///
/// Invariants:
/// - All input given is consumed unless a call says `outputFull` or `plaintextFull`; a record that is cut in two stays
///   inside, so the caller never keeps ciphertext back.
/// - Records leave in the order they were made. Whatever did not fit (`hasPendingOutput`) leaves first with the next
///   call that has output, so after `open` a caller looks at `hasPendingOutput` and calls `flush`.
/// - After a failure nothing is read any more; `output` holds the alert that tells the peer, if there is one to tell.
/// - OpenSSL's error queue belongs to the thread and other sessions run on it: it is emptied before calls that may fail
///   and after failures, so that one session's trouble is never read as another's.
public final class TLSSession {
    public enum State: Equatable, Sendable {
        case handshaking
        case established
        /// The peer said close_notify; we may still seal.
        case closed
        case failed(TLSFailure)
    }

    public enum HandshakeStatus: Equatable, Sendable {
        /// All input is consumed; send the output and bring more.
        case needMore
        /// Send the output and call again, with the same input from `consumed` on.
        case outputFull
        /// Send the output. Input from `consumed` on belongs to `open`.
        case done
        /// Send the output, it is the alert; `failure` says why.
        case failed
    }

    public enum OpenStatus: Equatable, Sendable {
        /// The plaintext region is full; there may be more inside: call again, without input if all is consumed.
        case plaintextFull
        /// All input is consumed and no more plaintext can be made of it.
        case needMore
        /// The peer said close_notify: a clean end.
        case closed
        /// What was produced is still good; `failure` says why there is no more.
        case failed
    }

    public enum SealStatus: Equatable, Sendable {
        /// All plaintext is sealed.
        case ok
        /// There is no room for another record.
        case outputFull
        case failed
    }

    public struct Progress<Status: Equatable & Sendable>: Equatable, Sendable {
        public let consumed: Int
        public let produced: Int
        public let status: Status
    }

    /// A record adds its header, its content type and its tag (RFC 8446 §5.2).
    public static let maximumRecordOverhead = 5 + 1 + 16
    /// Plaintext bytes of a full record (RFC 8446 §5.1).
    public static let maximumRecordPlaintext = 16_384
    /// KeyUpdate and other messages accepted between two records of data; after that the peer is flooding.
    public static let idleMessageLimit = 32

    private enum Phase {
        case handshaking
        case established
        case closed
        case failed
    }

    public let context: TLSContext
    /// The identities a client accepts; empty for a server.
    let expected: [SPIFFEID]
    let isServer: Bool
    private let ssl: OpaquePointer
    private let wire: UnsafeMutablePointer<MemoryWire>
    private var phase = Phase.handshaking
    private var saidClose = false
    private var recordsUnderKey = 0
    /// RFC 8446 §5.5 bounds AES-GCM at 2^24.5 full records for one key; we change ours below that.
    package var recordsPerKey = 1 << 24

    /// Why the session failed; nil while it has not.
    public internal(set) var failure: TLSFailure?
    /// Who the peer is, once its certificate is verified. Decide by it only when the handshake is done.
    public internal(set) var peerIdentity: SPIFFEID?
    /// When the peer's certificate ends, in unix seconds.
    public internal(set) var peerNotAfter: Int64?

    /// A client that accepts exactly these identities.
    public convenience init(client context: TLSContext, expecting identities: [SPIFFEID]) {
        self.init(context, context.client, expected: identities, isServer: false)
        SSL_set_connect_state(ssl)
    }

    /// A server that accepts every identity of its own trust domain.
    public convenience init(server context: TLSContext) {
        self.init(context, context.server, expected: [], isServer: true)
        SSL_set_accept_state(ssl)
    }

    private init(_ context: TLSContext, _ shared: OpaquePointer, expected: [SPIFFEID], isServer: Bool) {
        self.context = context
        self.expected = expected
        self.isServer = isServer
        wire = .allocate(capacity: 1)
        wire.initialize(to: MemoryWire())
        guard let ssl = SSL_new(shared), let bio = MemoryBIO.make(over: wire) else {
            fatalError("no memory for a TLS session")
        }
        // One reference serves both directions, and the SSL takes it over.
        SSL_set_bio(ssl, bio, bio)
        self.ssl = ssl
        // Callbacks find the session through this. Not retained: the SSL dies with the session and calls back only
        // from inside its methods.
        SSL_set_ex_data(ssl, 0, Unmanaged.passUnretained(self).toOpaque())
        culvert_ssl_set_message_argument(ssl, wire)
    }

    deinit {
        SSL_free(ssl)
        wire.pointee.release()
        wire.deallocate()
    }

    public var state: State {
        switch phase {
        case .handshaking: .handshaking
        case .established: .established
        case .closed: .closed
        case .failed: .failed(failure ?? TLSFailure(.protocolViolation("unknown")))
        }
    }

    /// Bytes wait for room: they leave first with the next `seal`, `flush` or `closeNotify`.
    public var hasPendingOutput: Bool { wire.pointee.pending > 0 }

    /// The cipher suite's name, once agreed.
    public var cipherSuite: String? {
        guard let cipher = SSL_get_current_cipher(ssl) else { return nil }
        return String(cString: SSL_CIPHER_get_name(cipher))
    }

    /// Moves the handshake on.
    public func handshake(
        input: UnsafeRawBufferPointer, output: UnsafeMutableRawBufferPointer
    ) -> Progress<HandshakeStatus> {
        precondition(phase == .handshaking || phase == .failed, "the handshake is over")
        wire.pointee.begin(output: output)
        wire.pointee.begin(input: input)
        defer { wire.pointee.end() }
        let status = phase == .failed ? .failed : stepHandshake()
        return Progress(
            consumed: input.count - wire.pointee.inputCount, produced: output.count - wire.pointee.outputRoom,
            status: status)
    }

    private func stepHandshake() -> HandshakeStatus {
        guard wire.pointee.pending == 0 else { return .outputFull }
        ERR_clear_error()
        let result = SSL_do_handshake(ssl)
        if result == 1 {
            phase = .established
            wire.pointee.isEstablished = true
            wire.pointee.idleMessages = 0
            return .done
        }
        guard SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ else {
            return wire.pointee.pending == 0 ? .needMore : .outputFull
        }
        fail(result)
        return .failed
    }

    /// Decrypts as many records as fit. Nothing is allocated.
    public func open(
        _ ciphertext: UnsafeRawBufferPointer, into plaintext: UnsafeMutableRawBufferPointer
    ) -> Progress<OpenStatus> {
        precondition(phase != .handshaking, "the handshake is not over")
        guard phase == .established else {
            // What comes after the end is not looked at.
            return Progress(consumed: ciphertext.count, produced: 0, status: phase == .closed ? .closed : .failed)
        }
        wire.pointee.begin(input: ciphertext)
        defer { wire.pointee.end() }
        ERR_clear_error()
        var produced = 0
        var status = OpenStatus.plaintextFull
        while produced < plaintext.count {
            var count = 0
            let result = SSL_read_ex(ssl, plaintext.baseAddress! + produced, plaintext.count - produced, &count)
            guard result == 1 else {
                status = endOfReading(result)
                break
            }
            produced += count
            wire.pointee.idleMessages = 0
        }
        return Progress(consumed: ciphertext.count - wire.pointee.inputCount, produced: produced, status: status)
    }

    private func endOfReading(_ result: Int32) -> OpenStatus {
        let error = SSL_get_error(ssl, result)
        switch error {
        case SSL_ERROR_WANT_READ where wire.pointee.idleMessages <= TLSSession.idleMessageLimit:
            return .needMore
        case SSL_ERROR_ZERO_RETURN:
            phase = .closed
            return .closed
        default:
            fail(result)
            return .failed
        }
    }

    /// Encrypts as much as there is room for, in records as large as possible. Nothing is allocated by us.
    public func seal(
        _ plaintext: UnsafeRawBufferPointer, into ciphertext: UnsafeMutableRawBufferPointer
    ) -> Progress<SealStatus> {
        precondition(phase != .handshaking && !saidClose, "sealing before the handshake's end or after close_notify")
        guard phase != .failed else { return Progress(consumed: 0, produced: 0, status: .failed) }
        wire.pointee.begin(output: ciphertext)
        defer { wire.pointee.end() }
        ERR_clear_error()
        var consumed = 0
        var status = SealStatus.ok
        while consumed < plaintext.count {
            let rest = plaintext.count - consumed
            let room = wire.pointee.outputRoom - TLSSession.maximumRecordOverhead
            // A sliver of room at the end is left alone: a short record costs the peer as much work as a long one.
            guard wire.pointee.pending == 0, room > 0, consumed == 0 || room >= min(rest, 1024) else {
                status = .outputFull
                break
            }
            let wanted = min(rest, room, TLSSession.maximumRecordPlaintext)
            var count = 0
            let result = SSL_write_ex(ssl, plaintext.baseAddress! + consumed, wanted, &count)
            guard result == 1 else {
                fail(result)
                status = .failed
                break
            }
            consumed += count
            recordsUnderKey += 1
            if recordsUnderKey >= recordsPerKey { changeKey() }
        }
        return Progress(consumed: consumed, produced: ciphertext.count - wire.pointee.outputRoom, status: status)
    }

    /// Queues a KeyUpdate: it leaves before the next record, 27 bytes that may spill.
    @inline(never)
    private func changeKey() {
        recordsUnderKey = 0
        SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED)
    }

    /// Queues a KeyUpdate that the peer must answer with its own: what a flooding peer does.
    package func requestPeerKeyUpdate() {
        SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED)
        SSL_do_handshake(ssl)
    }

    /// Moves out what waits, without sealing anything new. Returns how many bytes were placed.
    public func flush(into output: UnsafeMutableRawBufferPointer) -> Int {
        wire.pointee.begin(output: output)
        defer { wire.pointee.end() }
        return output.count - wire.pointee.outputRoom
    }

    /// Says that nothing more will be sealed; returns the bytes placed. Reading goes on (RFC 8446 §6.1).
    /// 24 bytes; what does not fit leaves with `flush`. Nothing before the end of the handshake or after a failure.
    public func closeNotify(into output: UnsafeMutableRawBufferPointer) -> Int {
        wire.pointee.begin(output: output)
        defer { wire.pointee.end() }
        if !saidClose, phase == .established || phase == .closed {
            saidClose = true
            ERR_clear_error()
            SSL_shutdown(ssl)
            ERR_clear_error()
        }
        return output.count - wire.pointee.outputRoom
    }

    /// The transport has no more input. Without close_notify before it that is a failure, and which one is returned:
    /// somebody may have cut the stream.
    public func endOfInput() -> TLSFailure? {
        switch phase {
        case .closed: return nil
        case .failed: return failure
        case .handshaking, .established:
            failure = TLSFailure(.truncated)
            phase = .failed
            return failure
        }
    }

    /// Gives back the two 17 KiB record buffers of an idle session; the next `open` and `seal` take new ones.
    /// Does nothing while part of a record is inside.
    public func releaseBuffers() {
        SSL_free_buffers(ssl)
        ERR_clear_error()
    }

    @inline(never)
    private func fail(_ result: Int32) {
        let error = SSL_get_error(ssl, result)
        phase = .failed
        if failure == nil {
            let isIdling = wire.pointee.isEstablished && wire.pointee.idleMessages > TLSSession.idleMessageLimit
            if wire.pointee.isOverflowing || isIdling {
                failure = TLSFailure(.flood)
            } else if error == SSL_ERROR_ZERO_RETURN {
                failure = TLSFailure(.truncated)
            } else {
                failure = .fromErrorQueue()
            }
        }
        ERR_clear_error()
    }
}
