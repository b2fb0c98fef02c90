internal import CNgHTTP2

extension HTTP2Session {
    /// Takes all of `bytes` and tells the events of what they mean.
    ///
    /// - Parameter now: monotonic nanoseconds; the bounds against floods are rates.
    /// - Returns: nil, or why the session is over. What `produce` still has (GOAWAY) should be sent before closing.
    public func receive(_ bytes: UnsafeRawBufferPointer, now: UInt64) -> HTTP2Failure? {
        precondition(activity == .idle, "receive inside an event")
        if failure != nil || bytes.isEmpty { return failure }
        activity = .receiving
        self.now = now
        let taken = nghttp2_session_mem_recv(codec, bytes.assumingMemoryBound(to: UInt8.self).baseAddress, bytes.count)
        activity = .idle
        if taken < 0 { note(codecError: taken) }
        if failure == nil {
            let queued = nghttp2_session_get_outbound_queue_size(codec)
            if queued > settings.queuedFrames + 4 * openStreams { failure = .flood(.unreadFrames) }
        }
        if case .flood = failure {
            // Only the sending side runs from here on; it ends with this frame.
            _ = nghttp2_session_terminate_session(codec, HTTP2ErrorCode.enhanceYourCalm)
        }
        return failure
    }

    // MARK: Called by the codec. False ends the session.

    func frameBegins(type: UInt8, flags: UInt8, length: Int) -> Bool {
        switch UInt32(type) {
        case NGHTTP2_HEADERS.rawValue, NGHTTP2_RST_STREAM.rawValue, NGHTTP2_WINDOW_UPDATE.rawValue,
            NGHTTP2_CONTINUATION.rawValue:
            return true
        case NGHTTP2_DATA.rawValue:
            // Empty DATA that ends nothing is work for nothing.
            return length > 0 || flags & UInt8(NGHTTP2_FLAG_END_STREAM.rawValue) != 0 || chargeControlFrame()
        default:
            return chargeControlFrame()
        }
    }

    private func chargeControlFrame() -> Bool {
        if controlBudget.take(at: now) { return true }
        failure = .flood(.controlFrames)
        return false
    }

    func invalidFrame(type: UInt8, stream id: Int32, number: Int32) -> Bool {
        let isBadMessage =
            number == NGHTTP2_ERR_HTTP_HEADER.rawValue || number == NGHTTP2_ERR_HTTP_MESSAGING.rawValue
        if role == .server, isBadMessage, UInt32(type) == NGHTTP2_HEADERS.rawValue, !streams.contains(id) {
            events.malformedRequest(stream: id)
        }
        return chargeControlFrame()
    }

    func arrived(_ id: Int32, _ bytes: UnsafeRawBufferPointer) {
        guard let index = streams.index(of: id) else {
            // Reset by us while this frame was arriving: nobody will consume it.
            return giveBack(Int32(bytes.count))
        }
        streams[index].unconsumed += Int32(bytes.count)
        events.data(stream: id, bytes)
    }

    func dispatch(_ frame: UnsafePointer<nghttp2_frame>) -> Bool {
        let raw = UnsafeRawPointer(frame)
        let header = raw.assumingMemoryBound(to: nghttp2_frame_hd.self).pointee
        switch UInt32(header.type) {
        case NGHTTP2_DATA.rawValue:
            if header.flags & endStreamFlag != 0 { peerEnded(header.stream_id) }
        case NGHTTP2_HEADERS.rawValue:
            let category = raw.assumingMemoryBound(to: nghttp2_headers.self).pointee.cat
            headersComplete(
                header.stream_id, isRequest: category == NGHTTP2_HCAT_REQUEST,
                endStream: header.flags & endStreamFlag != 0)
        case NGHTTP2_RST_STREAM.rawValue:
            return chargeReset(header.stream_id)
        case NGHTTP2_SETTINGS.rawValue:
            if header.flags & ackFlag == 0 { events.settingsReceived() }
        case NGHTTP2_PING.rawValue:
            if header.flags & ackFlag != 0 {
                let payload = raw.assumingMemoryBound(to: nghttp2_ping.self).pointee.opaque_data
                pingAnswered(withUnsafeBytes(of: payload) { $0.loadUnaligned(as: UInt64.self) })
            }
        case NGHTTP2_GOAWAY.rawValue:
            let goAway = raw.assumingMemoryBound(to: nghttp2_goaway.self).pointee
            peerIsLeaving = true
            events.goAway(lastStream: goAway.last_stream_id, errorCode: goAway.error_code)
        default: break
        }
        return true
    }

    private func headersComplete(_ id: Int32, isRequest: Bool, endStream: Bool) {
        if isRequest { streams.insert(id) }
        guard let index = streams.index(of: id) else { return }
        if role == .client {
            // RFC 9110 §15.2: informational responses precede the final one.
            let isInformational =
                incoming.withValue(":status") { $0.count == 3 && $0[0] == UInt8(ascii: "1") } ?? false
            if isInformational { return }
            streams[index].state.insert(.answered)
        }
        events.headers(stream: id, incoming, endStream: endStream)
        if endStream { peerEnded(id) }
    }

    private func peerEnded(_ id: Int32) {
        guard let index = streams.index(of: id) else { return }
        streams[index].state.insert(.peerEnded)
        events.endOfStream(stream: id)
    }

    /// A request that is dropped before it was answered cost us more than it cost the peer.
    private func chargeReset(_ id: Int32) -> Bool {
        guard role == .server, let index = streams.index(of: id), !streams[index].state.contains(.answered),
            !resetBudget.take(at: now)
        else { return true }
        failure = .flood(.resets)
        return false
    }

    func streamClosed(_ id: Int32, _ code: UInt32) {
        guard let index = streams.index(of: id) else { return }
        if streams[index].unconsumed > 0 {
            // Our reader still holds these bytes. The stream's own window is no more.
            streams[index].state.formUnion([.over, .peerEnded])
            streams[index].state.remove(.paused)
            streamsOver += 1
        } else {
            _ = streams.remove(id)
        }
        events.closed(stream: id, errorCode: code)
    }
}

private let endStreamFlag = UInt8(NGHTTP2_FLAG_END_STREAM.rawValue)
private let ackFlag = UInt8(NGHTTP2_FLAG_ACK.rawValue)
