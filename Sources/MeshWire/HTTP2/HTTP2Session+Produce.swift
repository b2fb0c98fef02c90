internal import CNgHTTP2

extension HTTP2Session {
    /// The least room `produce` accepts.
    public static var minimumOutput: Int { 64 }

    /// Bytes of a frame's header (RFC 9113 §4.1).
    private static var frameHeader: Int { 9 }

    /// A DATA frame at the end of a batch shorter than this, though more data may wait, is not worth its header.
    private static var worthwhilePayload: Int { 4096 }

    /// Writes as many frames as fit, one behind the other.
    ///
    /// - Returns: how many bytes were written; 0 when there is nothing to send now. A full buffer or a paused stream may
    ///   have left more: call again until 0.
    public func produce(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        precondition(activity == .idle, "produce inside an event")
        precondition(buffer.count >= Self.minimumOutput, "no room for a frame")
        activity = .producing
        output = buffer
        position = 0
        copyPending()
        while canProduce, pending.isEmpty {
            var chunk: UnsafePointer<UInt8>?
            let count = nghttp2_session_mem_send(codec, &chunk)
            if count < 0 { note(codecError: count) }
            if count <= 0 { break }
            pending = UnsafeRawBufferPointer(start: chunk, count: count)
            copyPending()
        }
        activity = .idle
        output = UnsafeMutableRawBufferPointer(start: nil, count: 0)
        return position
    }

    private func copyPending() {
        let count = min(pending.count, output.count - position)
        guard count > 0 else { return }
        UnsafeMutableRawBufferPointer(rebasing: output[position...])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: pending[..<count]))
        position += count
        pending = UnsafeRawBufferPointer(rebasing: pending[count...])
    }

    // MARK: Called by the codec

    /// Has the owner write the next payload of a stream to its final place, after room for the frame's header.
    func pull(_ id: Int32, atMost allowed: Int, flags: UnsafeMutablePointer<UInt32>) -> Int {
        let room = min(output.count - position - Self.frameHeader, allowed)
        // The codec keeps the stream first in line and asks again in the next batch.
        if position > 0, room < min(allowed, Self.worthwhilePayload) { return pause }
        let start = position + Self.frameHeader
        let place = UnsafeMutableRawBufferPointer(rebasing: output[start..<(start + room)])
        let result = ask(id, place)
        guard let index = streams.index(of: id) else { return deferred }
        switch result {
        case .bytes(let count, let end) where count > 0 || end:
            precondition(count >= 0 && count <= room, "more data than room")
            flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_NO_COPY.rawValue)
            if end { flags.pointee |= UInt32(NGHTTP2_DATA_FLAG_EOF.rawValue) }
            return count
        case .bytes, .pause:
            streams[index].state.insert(.paused)
            return deferred
        case .fail:
            reset(stream: id, code: HTTP2ErrorCode.internalError)
            return deferred
        }
    }

    private func ask(_ id: Int32, _ place: UnsafeMutableRawBufferPointer) -> OutgoingData {
        pulling = id
        wasResumedWhilePulling = false
        defer { pulling = 0 }
        let result = events.outgoingData(stream: id, into: place)
        // The codec cannot resume a stream that it has not deferred yet: ask once more instead.
        if case .pause = result, wasResumedWhilePulling { return events.outgoingData(stream: id, into: place) }
        return result
    }

    /// The payload stands already; its header goes in front of it.
    func finishDataFrame(header: UnsafePointer<UInt8>, payload: Int) {
        UnsafeMutableRawBufferPointer(rebasing: output[position...])
            .copyMemory(from: UnsafeRawBufferPointer(start: header, count: Self.frameHeader))
        position += Self.frameHeader + payload
    }

    /// The codec found the peer at fault. Our own GOAWAYs carry NO_ERROR or follow a recorded failure or `terminate`.
    func willSendGoAway(code: UInt32, detail: UnsafeBufferPointer<UInt8>) {
        guard failure == nil, !isTerminating, code != HTTP2ErrorCode.noError else { return }
        failure = .protocolViolation(code: code, detail: String(decoding: detail, as: UTF8.self))
    }

    /// A request that the codec could not send: the peer said GOAWAY first.
    func notSent(_ id: Int32) {
        guard role == .client, streams.remove(id) != nil else { return }
        events.closed(stream: id, errorCode: HTTP2ErrorCode.refusedStream)
    }
}

private let pause = Int(NGHTTP2_ERR_PAUSE.rawValue)
private let deferred = Int(NGHTTP2_ERR_DEFERRED.rawValue)
