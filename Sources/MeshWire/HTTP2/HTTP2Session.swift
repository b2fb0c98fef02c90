internal import CNgHTTP2

/// One side of an HTTP/2 connection (RFC 9113), from memory to memory: framing, HPACK and flow control are nghttp2's.
///
///     bytes from the peer ──▶ receive ──▶ HTTP2Events ─ ─ ▶ consumed (later: gives both windows back)
///     bytes for the peer  ◀── produce ◀── HTTP2Events.outgoingData, request, respond, reset, …
///
/// Invariants:
/// - `streams` holds the streams whose events the owner may still hear: a request enters with its complete header
///   block (server) or with `request` (client), and leaves with `closed` or with `reset`. After `closed` a stream
///   stays as `over` while bytes of it are unconsumed, and nothing is told of it;
/// - a byte given to `data` counts against both windows until `consumed`, also when its stream is closed meanwhile: so
///   a peer that opens, fills and resets streams cannot make their readers hold more than the session's window.
///   `reset` gives back the rest at once, and so does the codec for bytes that nobody was told of;
/// - DATA goes from `outgoingData` straight to its place in the caller's buffer, behind nine bytes kept free for the
///   frame's header: payload is never copied by the codec. Other frames are copied from the codec's frame buffer,
///   and what did not fit waits there;
/// - only `receive` and `produce` run the codec, and never one inside the other; everything else queues frames and is
///   legal inside an event;
/// - the codec's calls back carry `self` unretained: the codec dies in `deinit`.
///
/// Measured (one thread, 16 KiB frames, payload copied once by the owner): producing costs 0.022–0.026 CPU-s a GB this
/// way and 0.031–0.042 through the codec's own frame buffer; a frame of 128 bytes 120 ns and 133 ns.
///
/// Not for use by two threads. In the steady state (DATA, WINDOW_UPDATE, PING) nothing is allocated.
public final class HTTP2Session {
    public enum Role: Sendable { case client, server }

    enum Activity { case idle, receiving, producing }
    /// `noticed`: the first of two GOAWAYs is queued (RFC 9113 §6.8).
    enum Departure { case none, noticed, final }

    public let role: Role
    public let settings: HTTP2Settings
    let events: HTTP2Events
    private let memory: HTTP2Memory
    let codec: OpaquePointer

    var streams = StreamTable()
    /// Those of them that are `over`.
    var streamsOver = 0
    var activity = Activity.idle
    var departure = Departure.none
    var peerIsLeaving = false
    /// `terminate` was called: the GOAWAY that follows is our own.
    var isTerminating = false

    /// Why the session is over. A violation found by the codec is known at the latest when its GOAWAY is produced:
    /// look here after `produce` too.
    public internal(set) var failure: HTTP2Failure?

    // Receiving.
    var now: UInt64 = 0
    var incoming = HeaderBlock()
    var controlBudget: TokenBucket
    var resetBudget: TokenBucket

    // Producing.
    var output = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    var position = 0
    /// A part of a frame that did not fit, in the codec's frame buffer: valid until the codec produces again.
    var pending = UnsafeRawBufferPointer(start: nil, count: 0)
    var pulling: Int32 = 0
    var wasResumedWhilePulling = false
    private var pings: UInt64 = 0
    private var nameValueBytes: [UInt8] = []
    private var nameValues: [nghttp2_nv] = []

    /// Queues this side's SETTINGS (and the client's preface).
    /// - Parameter memory: shared by the sessions of one core.
    public init(role: Role, settings: HTTP2Settings, events: HTTP2Events, memory: HTTP2Memory = HTTP2Memory()) {
        precondition((1...Int(Int32.max)).contains(settings.streamWindow), "stream window out of range")
        precondition((65535...Int(Int32.max)).contains(settings.connectionWindow), "connection window out of range")
        precondition((16384...16_777_215).contains(settings.maxFrameSize), "frame size out of range")
        self.role = role
        self.settings = settings
        self.events = events
        self.memory = memory
        controlBudget = TokenBucket(burst: settings.controlFrameBurst, perSecond: settings.controlFramesPerSecond)
        resetBudget = TokenBucket(burst: settings.unansweredResetBurst, perSecond: settings.unansweredResetsPerSecond)
        codec = Self.makeCodec(role, memory: memory)
        nghttp2_session_set_user_data(codec, Unmanaged.passUnretained(self).toOpaque())
        announce()
    }

    deinit { nghttp2_session_del(codec) }

    private func announce() {
        var entries = [
            entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, settings.streamWindow),
            entry(NGHTTP2_SETTINGS_MAX_FRAME_SIZE, settings.maxFrameSize),
            entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, settings.headerListBytes),
        ]
        switch role {
        case .client: entries.append(entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0))
        case .server: entries.append(entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, settings.maxConcurrentStreams))
        }
        var status = nghttp2_submit_settings(codec, flagNone, entries, entries.count)
        if status == 0 {
            status = nghttp2_session_set_local_window_size(codec, flagNone, 0, Int32(settings.connectionWindow))
        }
        if status != 0 { note(codecError: Int(status)) }
    }

    private func entry(_ id: nghttp2_settings_id, _ value: Int) -> nghttp2_settings_entry {
        nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: UInt32(value))
    }

    // MARK: State

    public var wantsRead: Bool { failure == nil && nghttp2_session_want_read(codec) != 0 }

    /// Whether `produce` may have something. A stream whose owner paused does not count.
    public var wantsWrite: Bool { !pending.isEmpty || (canProduce && nghttp2_session_want_write(codec) != 0) }

    /// GOAWAY was said or heard, no stream is left and everything was produced: the connection can be closed.
    public var isFinished: Bool { !wantsWrite && !wantsRead }

    /// Streams that events may still come for.
    public var openStreams: Int { streams.count - streamsOver }

    /// Streams that the peer lets this side have open: 100 until its SETTINGS arrived.
    public var peerMaxConcurrentStreams: Int {
        let value = nghttp2_session_get_remote_settings(codec, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
        return Int(min(value, UInt32(Int32.max)))
    }

    /// After these the codec is not called again.
    var canProduce: Bool {
        switch failure {
        case nil, .protocolViolation, .flood: true
        case .badPreface, .outOfMemory, .codec: false
        }
    }

    // MARK: Streams

    /// Opens a stream (client). Its data is asked for through `outgoingData` once the headers went out.
    /// - Returns: the new stream's identifier.
    public func request(_ headers: [HeaderField], endStream: Bool = false) throws(HTTP2RequestRefusal) -> Int32 {
        precondition(role == .client, "a server opens no streams")
        guard failure == nil, departure == .none, !peerIsLeaving else { throw .goingAway }
        guard openStreams < peerMaxConcurrentStreams else { throw .tooManyStreams }
        let id = withNameValues(headers) { list, count in
            guard !endStream else { return nghttp2_submit_request(codec, nil, list, count, nil, nil) }
            var provider = Self.dataProvider
            return nghttp2_submit_request(codec, nil, list, count, &provider, nil)
        }
        guard id > 0 else {
            throw id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE.rawValue ? .identifiersExhausted : .outOfMemory
        }
        streams.insert(id)
        return id
    }

    /// Answers a request (server), once. Without `endStream`, data is asked for through `outgoingData`.
    /// - Returns: false when the stream is over already.
    @discardableResult
    public func respond(stream id: Int32, headers: [HeaderField], endStream: Bool) -> Bool {
        precondition(role == .server, "a client does not respond")
        guard failure == nil, let index = streams.index(of: id), !streams[index].state.contains(.over) else {
            return false
        }
        precondition(!streams[index].state.contains(.answered), "a request is answered once")
        streams[index].state.insert(.answered)
        let status = withNameValues(headers) { list, count in
            guard !endStream else { return nghttp2_submit_response(codec, id, list, count, nil) }
            var provider = Self.dataProvider
            return nghttp2_submit_response(codec, id, list, count, &provider)
        }
        if status != 0 { note(codecError: Int(status)) }
        return status == 0
    }

    /// Asks for the stream's data again after `OutgoingData.pause`.
    public func resume(stream id: Int32) {
        if id == pulling {
            wasResumedWhilePulling = true
            return
        }
        guard let index = streams.index(of: id), streams[index].state.contains(.paused) else { return }
        streams[index].state.remove(.paused)
        let status = nghttp2_session_resume_data(codec, id)
        if status == NGHTTP2_ERR_NOMEM.rawValue { note(codecError: Int(status)) }
    }

    /// Gives back the windows of bytes that `data` delivered. Every byte has to be consumed once, also after `closed`,
    /// or dropped with `reset`. Has no effect on a stream that was reset here.
    public func consumed(stream id: Int32, bytes: Int) {
        guard bytes > 0, failure == nil, let index = streams.index(of: id) else { return }
        precondition(bytes <= Int(streams[index].unconsumed), "more consumed than was delivered")
        streams[index].unconsumed -= Int32(bytes)
        // A peer that ended its direction has no use for the stream's window (RFC 9113 §5.1, half-closed).
        let status =
            streams[index].state.contains(.peerEnded)
            ? nghttp2_session_consume_connection(codec, bytes) : nghttp2_session_consume(codec, id, bytes)
        if streams[index].state.contains(.over), streams[index].unconsumed == 0 {
            _ = streams.remove(id)
            streamsOver -= 1
        }
        if status != 0 { note(codecError: Int(status)) }
    }

    /// Ends the stream in both directions with RST_STREAM and gives its unconsumed bytes back. No event tells of it any
    /// more, nor of its end. After `closed` it only drops the bytes.
    public func reset(stream id: Int32, code: UInt32) {
        guard let slot = streams.remove(id) else { return }
        let wasOver = slot.state.contains(.over)
        if wasOver { streamsOver -= 1 }
        guard failure == nil else { return }
        giveBack(slot.unconsumed)
        if wasOver { return }
        let status = nghttp2_submit_rst_stream(codec, flagNone, id, code)
        if status != 0 { note(codecError: Int(status)) }
    }

    /// Returns bytes of a stream that is no more to the connection's window.
    func giveBack(_ bytes: Int32) {
        guard bytes > 0 else { return }
        let status = nghttp2_session_consume_connection(codec, Int(bytes))
        if status != 0 { note(codecError: Int(status)) }
    }

    // MARK: Session

    /// Lets open streams finish and takes no new ones. A server says so in two steps (RFC 9113 §6.8): a notice, and the
    /// last stream's identifier once the peer must have seen it. `isFinished` tells when all is done.
    public func goAway() {
        guard departure == .none, failure == nil else { return }
        switch role {
        case .client: sendFinalGoAway()
        case .server:
            departure = .noticed
            var status = nghttp2_submit_shutdown_notice(codec)
            if status == 0 { status = submitPing(Self.departurePing) }
            if status != 0 { note(codecError: Int(status)) }
        }
    }

    func sendFinalGoAway() {
        departure = .final
        let last = nghttp2_session_get_last_proc_stream_id(codec)
        let status = nghttp2_submit_goaway(codec, flagNone, last, HTTP2ErrorCode.noError, nil, 0)
        if status != 0 { note(codecError: Int(status)) }
    }

    /// Ends the session now: GOAWAY with `code` is the last frame produced, and nothing is received any more.
    public func terminate(code: UInt32) {
        guard failure == nil else { return }
        departure = .final
        isTerminating = true
        let status = nghttp2_session_terminate_session(codec, code)
        if status != 0 { note(codecError: Int(status)) }
    }

    /// Sends a PING; `pingAcknowledged` tells of the answer to the latest one.
    public func ping() {
        guard failure == nil else { return }
        pings += 1
        let status = submitPing(pings)
        if status != 0 { note(codecError: Int(status)) }
    }

    /// Pings of the owner count from 1, so they never look like this one.
    static let departurePing: UInt64 = 0

    private func submitPing(_ number: UInt64) -> Int32 {
        withUnsafeBytes(of: number) {
            nghttp2_submit_ping(codec, flagNone, $0.assumingMemoryBound(to: UInt8.self).baseAddress)
        }
    }

    func pingAnswered(_ number: UInt64) {
        if number == Self.departurePing {
            if departure == .noticed { sendFinalGoAway() }
        } else if number == pings {
            events.pingAcknowledged()
        }
    }

    /// Records a failed call of the codec; the first failure stays.
    func note(codecError number: Int) {
        guard failure == nil else { return }
        failure =
            switch Int32(truncatingIfNeeded: number) {
            case NGHTTP2_ERR_BAD_CLIENT_MAGIC.rawValue: .badPreface
            case NGHTTP2_ERR_NOMEM.rawValue: .outOfMemory
            case NGHTTP2_ERR_FLOODED.rawValue: .flood(.unreadFrames)
            default: .codec(number)
            }
    }

    // MARK: Headers

    /// Lays the fields out as the codec wants them, in memory that is used again; the codec copies them.
    private func withNameValues(
        _ fields: [HeaderField], _ body: (UnsafePointer<nghttp2_nv>?, Int) -> Int32
    ) -> Int32 {
        nameValueBytes.removeAll(keepingCapacity: true)
        nameValues.removeAll(keepingCapacity: true)
        for field in fields {
            nameValueBytes.append(contentsOf: field.name.utf8)
            nameValueBytes.append(contentsOf: field.value.utf8)
        }
        return nameValueBytes.withUnsafeMutableBufferPointer { bytes in
            // An empty list has no address; the codec wants one.
            guard var next = bytes.baseAddress else { return body(nil, 0) }
            for field in fields {
                let nameLength = field.name.utf8.count
                let valueLength = field.value.utf8.count
                let flags = field.isVolatile ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE
                nameValues.append(
                    nghttp2_nv(
                        name: next, value: next + nameLength, namelen: nameLength, valuelen: valueLength,
                        flags: UInt8(flags.rawValue)))
                next += nameLength + valueLength
            }
            return nameValues.withUnsafeBufferPointer { body($0.baseAddress, $0.count) }
        }
    }
}

let flagNone = UInt8(NGHTTP2_FLAG_NONE.rawValue)
