internal import MeshModel

/// What a request's head becomes on its way to a backend.
struct RequestRewriting {
    var modifiers: [HTTPRoute.HeaderModifier] = []
    /// The value of `x-forwarded-client-cert`; nil: the caller has no identity and the field is only taken out.
    var clientCertificate: String?
    /// 128 random bits for `x-request-id` where the caller gave none.
    var requestID: (high: UInt64, low: UInt64) = (0, 0)
    /// `Host` of a request of HTTP/1.0 that names none.
    var defaultHost = ""

    /// The bytes written, nil where they do not fit into `target`.
    func write(_ head: HTTPHead, _ bytes: Span<UInt8>, into target: UnsafeMutableRawBufferPointer) -> Int? {
        let edits = HeaderEdits(modifiers, head: head, bytes: bytes)
        var writer = HeadWriter(target)
        writer.put(head.method, of: bytes)
        writer.put(" ")
        writeTarget(head, bytes, &writer)
        writer.put(" HTTP/1.1\r\nhost: ")
        if let host = edits.host {
            writer.put(host)
        } else if head.authority.isEmpty {
            writer.put(defaultHost)
        } else {
            writer.put(head.authority, of: bytes)
        }
        writer.put("\r\n")

        var hasRequestID = false
        for (index, field) in head.fields.enumerated() where edits.keeps(index) && passes(field, head) {
            if field.kind == .requestID { hasRequestID = true }
            writer.field(field, of: bytes)
        }
        for field in edits.added {
            if field.name == "x-request-id" { hasRequestID = true }
            writer.put(field.name)
            writer.put(": ")
            writer.put(field.value)
            writer.put("\r\n")
        }
        writer.framing(head.requestFraming)
        if head.wantsWebSocket { writer.put("connection: upgrade\r\nupgrade: websocket\r\n") }
        if let clientCertificate { writer.field("x-forwarded-client-cert", clientCertificate) }
        if !hasRequestID {
            writer.put("x-request-id: ")
            writer.put(uuid: requestID)
            writer.put("\r\n")
        }
        writer.put("\r\n")
        return writer.overflowed ? nil : writer.count
    }

    private func writeTarget(_ head: HTTPHead, _ bytes: Span<UInt8>, _ writer: inout HeadWriter) {
        if head.isAbsoluteForm, head.path.isEmpty {
            // `OPTIONS http://host` asks about the server as a whole (RFC 9112 §3.2.4).
            let isWhole = head.target.isEmpty && head.method.equals("OPTIONS", in: bytes)
            writer.put(isWhole ? "*" : "/")
        }
        writer.put(head.target, of: bytes)
    }

    private func passes(_ field: HTTPHead.Field, _ head: HTTPHead) -> Bool {
        switch field.kind {
        case .other, .requestID: !field.isListed
        // An expectation is for the server that answers, and means nothing in HTTP/1.0 (RFC 9110 §10.1.1).
        case .expect: head.minorVersion == 1
        case .host, .contentLength, .transferEncoding, .connection, .upgrade, .hopByHop, .clientCertificate: false
        }
    }
}

/// What a response's head becomes on its way to the client.
struct ResponseRewriting {
    var framing: BodyFraming
    /// The client speaks HTTP/1.1.
    var clientIsCurrent = true
    var toHEAD = false
    /// We keep the client's connection open afterwards.
    var isPersistent = true
    var acceptsUpgrade = false

    func write(_ head: HTTPHead, _ bytes: Span<UInt8>, into target: UnsafeMutableRawBufferPointer) -> Int? {
        var writer = HeadWriter(target)
        writer.put("HTTP/1.1 ")
        writer.put(UInt64(head.status))
        writer.put(" ")
        writer.put(head.phrase, of: bytes)
        writer.put("\r\n")
        for field in head.fields where passes(field) { writer.field(field, of: bytes) }
        writer.framing(announcedFraming(head))
        if acceptsUpgrade {
            writer.put("connection: upgrade\r\nupgrade: websocket\r\n")
        } else if head.status >= 200 {
            if !isPersistent {
                writer.field("connection", "close")
            } else if !clientIsCurrent {
                writer.field("connection", "keep-alive")
            }
        }
        writer.put("\r\n")
        return writer.overflowed ? nil : writer.count
    }

    /// A response to HEAD and a 304 say how long the body would be; 1xx and 204 must not (RFC 9110 §8.6, RFC 9112 §6.1).
    private func announcedFraming(_ head: HTTPHead) -> BodyFraming {
        var announced = framing
        if toHEAD || head.status == 304, head.status >= 200, head.status != 204 {
            announced = head.isChunked ? .chunked : head.contentLength.map(BodyFraming.length) ?? .none
        }
        return announced == .chunked && !clientIsCurrent ? .none : announced
    }

    private func passes(_ field: HTTPHead.Field) -> Bool {
        switch field.kind {
        case .other, .requestID, .expect, .host, .clientCertificate: !field.isListed
        case .contentLength, .transferEncoding, .connection, .upgrade, .hopByHop: false
        }
    }
}

extension HeadWriter {
    /// A random UUID (RFC 9562 §5.4) of 128 random bits.
    mutating func put(uuid bits: (high: UInt64, low: UInt64)) {
        let high = bits.high & ~0xf000 | 0x4000
        let low = bits.low & ~(0b11 << 62) | 0b10 << 62
        for index in 0..<32 {
            if index == 8 || index == 12 || index == 16 || index == 20 { put(byte: UInt8(ascii: "-")) }
            let digit = UInt8((index < 16 ? high : low) >> UInt64(60 - index % 16 * 4) & 15)
            put(byte: digit < 10 ? digit + 0x30 : digit - 10 + 0x61)
        }
    }
}
