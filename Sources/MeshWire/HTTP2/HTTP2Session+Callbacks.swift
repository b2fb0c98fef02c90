internal import CNgHTTP2

/// The border to C: every pointer that nghttp2 hands over is turned into Swift values here and nowhere else.
/// `owner` is the session, unretained: it owns the codec and outlives each call.
extension HTTP2Session {
    static func makeCodec(_ role: Role, memory: HTTP2Memory) -> OpaquePointer {
        var callbacks: OpaquePointer?
        var option: OpaquePointer?
        var codec: OpaquePointer?
        var interface = memory.interface
        precondition(nghttp2_session_callbacks_new(&callbacks) == 0 && nghttp2_option_new(&option) == 0, "no memory")
        setReceiving(callbacks)
        setProducing(callbacks)
        // Windows are given back by `consumed`, when the bytes have left the proxy.
        nghttp2_option_set_no_auto_window_update(option, 1)
        // Closed streams are kept only for the priorities of RFC 7540, which nobody here uses.
        nghttp2_option_set_no_closed_streams(option, 1)
        // The codec's own limit counts every reset by the wall clock; a proxy resets streams in its daily work.
        // `resetBudget` counts those that matter.
        nghttp2_option_set_stream_reset_rate_limit(option, 1 << 62, 1)
        let status =
            switch role {
            case .client: nghttp2_session_client_new3(&codec, callbacks, nil, option, &interface)
            case .server: nghttp2_session_server_new3(&codec, callbacks, nil, option, &interface)
            }
        nghttp2_session_callbacks_del(callbacks)
        nghttp2_option_del(option)
        guard status == 0, let codec else { preconditionFailure("no memory") }
        return codec
    }

    private static func of(_ owner: UnsafeMutableRawPointer?) -> HTTP2Session {
        Unmanaged<HTTP2Session>.fromOpaque(owner!).takeUnretainedValue()
    }

    private static func header(of frame: UnsafePointer<nghttp2_frame>?) -> nghttp2_frame_hd {
        // Every member of the union begins with the header; reading it alone leaves the rest alone.
        UnsafeRawPointer(frame!).assumingMemoryBound(to: nghttp2_frame_hd.self).pointee
    }

    private static let refused = NGHTTP2_ERR_CALLBACK_FAILURE.rawValue

    private static func setReceiving(_ callbacks: OpaquePointer?) {
        nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks) { _, header, owner in
            let header = header!.pointee
            return HTTP2Session.of(owner).frameBegins(
                type: header.type, flags: header.flags, length: header.length) ? 0 : HTTP2Session.refused
        }
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, _, owner in
            HTTP2Session.of(owner).incoming.clear()
            return 0
        }
        nghttp2_session_callbacks_set_on_header_callback(callbacks) {
            _, _, name, nameLength, value, valueLength, _, owner in
            let session = HTTP2Session.of(owner)
            session.incoming.append(
                name: UnsafeBufferPointer(start: name, count: nameLength),
                value: UnsafeBufferPointer(start: value, count: valueLength), limit: session.settings.headerListBytes)
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, owner in
            HTTP2Session.of(owner).dispatch(frame!) ? 0 : HTTP2Session.refused
        }
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { _, _, id, bytes, count, owner in
            HTTP2Session.of(owner).arrived(id, UnsafeRawBufferPointer(start: bytes, count: count))
            return 0
        }
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { _, id, code, owner in
            HTTP2Session.of(owner).streamClosed(id, code)
            return 0
        }
        nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks) { _, frame, number, owner in
            let header = HTTP2Session.header(of: frame)
            return HTTP2Session.of(owner).invalidFrame(
                type: header.type, stream: header.stream_id, number: number) ? 0 : HTTP2Session.refused
        }
    }

    private static func setProducing(_ callbacks: OpaquePointer?) {
        nghttp2_session_callbacks_set_before_frame_send_callback(callbacks) { _, frame, owner in
            let frame = frame!
            guard HTTP2Session.header(of: frame).type == UInt8(NGHTTP2_GOAWAY.rawValue) else { return 0 }
            let goAway = UnsafeRawPointer(frame).assumingMemoryBound(to: nghttp2_goaway.self).pointee
            HTTP2Session.of(owner).willSendGoAway(
                code: goAway.error_code,
                detail: UnsafeBufferPointer(start: goAway.opaque_data, count: goAway.opaque_data_len))
            return 0
        }
        nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks) { _, frame, _, owner in
            let header = HTTP2Session.header(of: frame)
            if header.type == UInt8(NGHTTP2_HEADERS.rawValue) { HTTP2Session.of(owner).notSent(header.stream_id) }
            return 0
        }
        nghttp2_session_callbacks_set_send_data_callback(callbacks) { _, _, header, count, _, owner in
            HTTP2Session.of(owner).finishDataFrame(header: header!, payload: count)
            return 0
        }
    }

    static var dataProvider: nghttp2_data_provider {
        nghttp2_data_provider(
            source: nghttp2_data_source(),
            read_callback: { _, id, _, room, flags, _, owner in
                HTTP2Session.of(owner).pull(id, atMost: room, flags: flags!)
            })
    }
}
