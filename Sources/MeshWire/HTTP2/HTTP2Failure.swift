/// Error codes of RST_STREAM and GOAWAY (RFC 9113 §7).
public enum HTTP2ErrorCode {
    public static let noError: UInt32 = 0x0
    public static let protocolError: UInt32 = 0x1
    public static let internalError: UInt32 = 0x2
    public static let flowControlError: UInt32 = 0x3
    public static let refusedStream: UInt32 = 0x7
    public static let cancel: UInt32 = 0x8
    public static let connectError: UInt32 = 0xa
    public static let enhanceYourCalm: UInt32 = 0xb

    /// The name in RFC 9113 §7, or the number of a code that has none.
    public static func name(of code: UInt32) -> String {
        let names = [
            "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
            "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
        ]
        return code < UInt32(names.count) ? names[Int(code)] : "error code \(code)"
    }
}

/// Why a session is over. Whatever its last frame says is still produced; then the connection has to be closed.
public enum HTTP2Failure: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Flood: String, Hashable, Sendable {
        case controlFrames = "control frames"
        case resets = "resets of unanswered requests"
        case unreadFrames = "frames that the peer makes us send but does not read"
    }

    /// The client did not begin with the preface of RFC 9113 §3.4.
    case badPreface
    /// The peer broke the protocol; `code` goes out in GOAWAY.
    case protocolViolation(code: UInt32, detail: String)
    /// The peer went past a bound of `HTTP2Settings`; GOAWAY says ENHANCE_YOUR_CALM.
    case flood(Flood)
    case outOfMemory
    /// The codec refused to go on, with its own error number.
    case codec(Int)

    public var description: String {
        switch self {
        case .badPreface: "the peer does not speak HTTP/2"
        case .protocolViolation(let code, let detail):
            detail.isEmpty ? HTTP2ErrorCode.name(of: code) : "\(HTTP2ErrorCode.name(of: code)): \(detail)"
        case .flood(let flood): "too many \(flood.rawValue)"
        case .outOfMemory: "out of memory"
        case .codec(let number): "HTTP/2 codec error \(number)"
        }
    }
}

/// Why a request was not sent. Nothing of it went out: another session may take it.
public enum HTTP2RequestRefusal: Error, Hashable, Sendable {
    /// As many streams are open as the peer allows (RFC 9113 §5.1.2).
    case tooManyStreams
    /// One side said GOAWAY, or the session failed.
    case goingAway
    /// All stream identifiers of the session are used up (RFC 9113 §5.1.1).
    case identifiersExhausted
    case outOfMemory
}
