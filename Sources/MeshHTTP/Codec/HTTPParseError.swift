/// What is wrong with a message. Every one of them ends the connection: after a message that two parsers could read
/// differently nothing that follows can be trusted (RFC 9112 §11.2).
enum HTTPParseError: Error, Hashable, CaseIterable {
    // Start line.
    case malformedStartLine
    case malformedMethod
    case connectNotSupported
    case malformedTarget
    case targetTooLong
    case unsupportedVersion
    // Lines and fields.
    case malformedLineEnd
    case malformedField
    case foldedField
    case malformedFieldValue
    case headTooLarge
    case tooManyFields
    // Meaning of fields.
    case missingHost
    case repeatedHost
    case malformedHost
    case malformedContentLength
    case unsupportedTransferEncoding
    case conflictingFraming
    case malformedConnection
    // Body.
    case malformedChunk
    case chunkTooLarge
    case chunkExtensionTooLarge
    case malformedTrailer
    case trailerTooLarge
    case truncatedBody

    /// The status a client gets for such a request. A server whose response is like this makes it a 502.
    var requestStatus: Int {
        switch self {
        case .connectNotSupported: 405
        case .targetTooLong: 414
        case .headTooLarge, .tooManyFields: 431
        case .unsupportedVersion: 505
        default: 400
        }
    }

    /// One line for the client, which never repeats the client's bytes.
    var explanation: StaticString {
        switch self {
        case .malformedStartLine: "the start line is malformed"
        case .malformedMethod: "the method is not a token"
        case .connectNotSupported: "CONNECT is not supported"
        case .malformedTarget: "the request target is malformed"
        case .targetTooLong: "the request target is too long"
        case .unsupportedVersion: "only HTTP/1.1 and HTTP/1.0 are supported"
        case .malformedLineEnd: "lines must end with CRLF"
        case .malformedField: "a header field is malformed"
        case .foldedField: "folded header fields are not supported"
        case .malformedFieldValue: "a header field value has a forbidden character"
        case .headTooLarge: "the header section is too large"
        case .tooManyFields: "there are too many header fields"
        case .missingHost: "the Host field is missing"
        case .repeatedHost: "the Host field is repeated"
        case .malformedHost: "the Host field is malformed"
        case .malformedContentLength: "the Content-Length field is malformed or repeated"
        case .unsupportedTransferEncoding: "the only transfer coding supported is chunked, in HTTP/1.1"
        case .conflictingFraming: "Content-Length and Transfer-Encoding exclude each other"
        case .malformedConnection: "the Connection field is malformed"
        case .malformedChunk: "a chunk is malformed"
        case .chunkTooLarge: "a chunk size is too large"
        case .chunkExtensionTooLarge: "chunk extensions are too large"
        case .malformedTrailer: "a trailer field is malformed"
        case .trailerTooLarge: "the trailer section is too large"
        case .truncatedBody: "the body was cut off"
        }
    }
}
