import MeshWire

/// What a test's peer knows of one stream.
final class PeerStream {
    /// Bytes of the pattern still to send; nil while nothing is asked of this direction.
    var left: Int?
    /// Ends the direction once nothing is left.
    var endsWhenSent = true
    var sent = 0
    var received = 0
    /// Received and not consumed.
    var unread = 0
    var isCorrect = true
    var headers: [HeaderField] = []
    var exceedsLimit = false
    var ends = 0
    var closed: UInt32?
    var dataAfterEnd = false
}

/// One side of a session that sends patterns and checks those that arrive.
final class Peer: HTTP2Events {
    let isClient: Bool
    unowned var session: HTTP2Session!
    var streams: [Int32: PeerStream] = [:]
    var unread = 0
    var highestUnread = 0
    var highestUnreadOfStream = 0
    var goAways: [(last: Int32, code: UInt32)] = []
    var settings = 0
    var pongs = 0
    var malformed: [Int32] = []
    var smallestFrameRoom = Int.max
    /// The other side sends back what it gets.
    var expectsEcho = false

    /// Called inside events, after the bookkeeping.
    var onHeaders: (Int32, HeaderBlock, Bool) -> Void = { _, _, _ in }
    var onData: (Int32, Int) -> Void = { _, _ in }
    var onEnd: (Int32) -> Void = { _ in }
    var onClosed: (Int32, UInt32) -> Void = { _, _ in }
    /// Called inside `outgoingData`, before it answers.
    var onOutgoing: (Int32) -> Void = { _ in }

    init(isClient: Bool) {
        self.isClient = isClient
        super.init()
    }

    func stream(_ id: Int32) -> PeerStream {
        if let stream = streams[id] { return stream }
        let stream = PeerStream()
        streams[id] = stream
        return stream
    }

    func consume(_ id: Int32, _ count: Int) {
        let stream = stream(id)
        stream.unread -= count
        unread -= count
        session.consumed(stream: id, bytes: count)
    }

    /// Starts sending `count` bytes of the pattern.
    func send(_ id: Int32, _ count: Int, ends: Bool = true) {
        let stream = stream(id)
        stream.left = (stream.left ?? 0) + count
        stream.endsWhenSent = ends
        session.resume(stream: id)
    }

    override func headers(stream id: Int32, _ fields: HeaderBlock, endStream: Bool) {
        let stream = stream(id)
        precondition(stream.closed == nil, "headers after closed")
        stream.headers = Array(fields)
        stream.exceedsLimit = fields.exceedsLimit
        onHeaders(id, fields, endStream)
    }

    override func data(stream id: Int32, _ bytes: UnsafeRawBufferPointer) {
        let stream = stream(id)
        precondition(stream.closed == nil, "data after closed")
        if stream.ends > 0 { stream.dataAfterEnd = true }
        for byte in bytes {
            if byte != patternByte(id, fromClient: isClient == expectsEcho, stream.received) {
                stream.isCorrect = false
            }
            stream.received += 1
        }
        stream.unread += bytes.count
        unread += bytes.count
        highestUnread = max(highestUnread, unread)
        highestUnreadOfStream = max(highestUnreadOfStream, stream.unread)
        onData(id, bytes.count)
    }

    override func endOfStream(stream id: Int32) {
        precondition(stream(id).closed == nil, "end after closed")
        stream(id).ends += 1
        onEnd(id)
    }

    override func closed(stream id: Int32, errorCode: UInt32) {
        precondition(stream(id).closed == nil, "closed twice")
        stream(id).closed = errorCode
        onClosed(id, errorCode)
    }

    override func goAway(lastStream: Int32, errorCode: UInt32) { goAways.append((lastStream, errorCode)) }
    override func settingsReceived() { settings += 1 }
    override func pingAcknowledged() { pongs += 1 }
    override func malformedRequest(stream: Int32) { malformed.append(stream) }

    override func outgoingData(stream id: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
        onOutgoing(id)
        let stream = stream(id)
        precondition(!buffer.isEmpty)
        smallestFrameRoom = min(smallestFrameRoom, buffer.count)
        guard let left = stream.left else { return .pause }
        let count = min(left, buffer.count)
        for index in 0..<count {
            buffer[index] = patternByte(id, fromClient: isClient, stream.sent + index)
        }
        stream.sent += count
        stream.left = left - count
        if left == count, !stream.endsWhenSent { stream.left = nil }
        if count == 0, !stream.endsWhenSent { return .pause }
        return .bytes(count, end: left == count && stream.endsWhenSent)
    }
}
