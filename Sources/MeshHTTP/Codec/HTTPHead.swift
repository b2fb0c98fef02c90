/// How the end of a body is found (RFC 9112 §6.3).
enum BodyFraming: Equatable {
    case none
    case length(UInt64)
    case chunked
    /// Responses only.
    case untilClose
}

/// A parsed head: ranges into the bytes it was parsed from, and the facts that decide framing and persistence.
/// It stays valid while those bytes stay, wherever they are moved.
struct HTTPHead {
    /// The names a proxy must know.
    enum FieldKind: UInt8 {
        case other
        case host
        case contentLength
        case transferEncoding
        case connection
        case upgrade
        case expect
        /// `Keep-Alive`, `Proxy-Connection`, `TE`, `HTTP2-Settings`: for one hop by definition, listed or not.
        case hopByHop
        /// `x-forwarded-client-cert`: only we may say who the caller is.
        case clientCertificate
        case requestID
    }

    struct Field: Equatable {
        var name: HTTPSlice
        var value: HTTPSlice
        var kind: FieldKind
        /// Named by `Connection`, so meant for this hop only (RFC 9110 §7.6.1).
        var isListed = false
    }

    // Requests.
    var method = HTTPSlice.empty
    /// What stands between scheme and path in absolute-form, or the value of `Host`; empty in HTTP/1.0 without either.
    var authority = HTTPSlice.empty
    /// Path and query as sent on; for absolute-form without a path it starts with `?` or is empty, and `/` goes before.
    var target = HTTPSlice.empty
    /// The part of `target` before the query.
    var path = HTTPSlice.empty
    var isAbsoluteForm = false
    /// GET over HTTP/1.1 without body that asks for `websocket`, the one upgrade we pass on.
    var wantsWebSocket = false
    var expectsContinue = false

    // Responses.
    var status = 0
    var phrase = HTTPSlice.empty
    /// 101 to `websocket`.
    var acceptsWebSocket = false

    // Both.
    var minorVersion: UInt8 = 1
    var fields: [Field] = []
    var contentLength: UInt64?
    var isChunked = false
    /// The sender keeps the connection open after this message (RFC 9112 §9.3).
    var isPersistent = true

    /// Of a request.
    var requestFraming: BodyFraming {
        if isChunked { return .chunked }
        return contentLength.map(BodyFraming.length) ?? .none
    }

    /// Of the response to a request; `toHEAD`: its method was HEAD.
    func responseFraming(toHEAD: Bool) -> BodyFraming {
        if toHEAD || status < 200 || status == 204 || status == 304 { return .none }
        if isChunked { return .chunked }
        return contentLength.map(BodyFraming.length) ?? .untilClose
    }

    /// Forgets everything but keeps the storage of the field list.
    mutating func clear() {
        var kept: [Field] = []
        swap(&kept, &fields)
        kept.removeAll(keepingCapacity: true)
        self = HTTPHead()
        fields = kept
    }
}
