/// # Heads of HTTP/1.1 messages, parsed as they arrive
///
/// The caller keeps the bytes from the first of the head in one contiguous buffer, appends what arrives, and calls
/// `parse` again. Lines are parsed when their LF is there, so
/// - a byte is searched for LF once, however the peer drips (no quadratic work), and
/// - the outcome depends on the bytes alone, never on how they were split: an error stands at a line, and a line is
///   judged only as a whole. The limits are judged by the same counts with and without the LF.
///
/// The grammar is RFC 9112 read strictly. Leniency the RFC permits (bare LF, folding, blanks before the colon, repeated
/// equal lengths) is refused: a proxy that forgives is how two parsers come to disagree about where a message ends.
struct HTTPHeadParser {
    enum Role {
        case request
        case response
    }

    enum Progress: Equatable {
        case needMore
        /// The head takes this many bytes, the empty line included.
        case complete(Int)
        case failed(HTTPParseError)
    }

    private enum Phase {
        case startLine
        case fields
    }

    let role: Role
    let limits: HTTPCodecLimits
    var head = HTTPHead()
    var hostCount = 0
    var contentLengthCount = 0
    var transferEncodingCount = 0
    private var phase = Phase.startLine
    /// Where the head starts: after the empty line that RFC 9112 §2.2 wants ignored before a request.
    private var headStart = 0
    private var lineStart = 0
    private var scanned = 0

    init(_ role: Role, limits: HTTPCodecLimits) {
        self.role = role
        self.limits = limits
        head.fields.reserveCapacity(32)
    }

    /// Prepares for the next head, which starts at the first byte of the bytes given then.
    mutating func reset() {
        head.clear()
        hostCount = 0
        contentLengthCount = 0
        transferEncodingCount = 0
        phase = .startLine
        headStart = 0
        lineStart = 0
        scanned = 0
    }

    /// Goes on with everything received so far. After `complete` or `failed` call `reset` first.
    mutating func parse(_ bytes: Span<UInt8>) -> Progress {
        do throws(HTTPParseError) {
            while let lineFeed = nextLineFeed(bytes) {
                try checkSize(lineFeed + 1)
                guard lineFeed > lineStart, bytes[lineFeed - 1] == HTTPCharacters.carriageReturn else {
                    throw .malformedLineEnd
                }
                let line = HTTPSlice(lineStart, lineFeed - 1)
                lineStart = lineFeed + 1
                if try parseLine(line, bytes) {
                    try finish(bytes)
                    return .complete(lineStart)
                }
            }
            try checkSize(bytes.count)
            return .needMore
        } catch {
            return .failed(error)
        }
    }

    private mutating func nextLineFeed(_ bytes: Span<UInt8>) -> Int? {
        let count = bytes.count
        while scanned < count {
            scanned += 1
            if bytes[scanned - 1] == HTTPCharacters.lineFeed { return scanned - 1 }
        }
        return nil
    }

    /// `end`: one past the last byte that is known to belong to this line.
    private func checkSize(_ end: Int) throws(HTTPParseError) {
        if phase == .startLine, role == .request, end - headStart > min(startLineBytes, limits.headBytes) {
            throw .targetTooLong
        }
        if end - headStart > limits.headBytes { throw .headTooLarge }
    }

    /// Method, target, two spaces, version, CRLF.
    private var startLineBytes: Int { limits.methodBytes + limits.targetBytes + 12 }

    /// True at the empty line that ends the head.
    private mutating func parseLine(_ line: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) -> Bool {
        switch phase {
        case .startLine:
            if line.isEmpty, role == .request, headStart == 0 {
                headStart = lineStart
                return false
            }
            switch role {
            case .request: try parseRequestLine(line, bytes)
            case .response: try parseStatusLine(line, bytes)
            }
            phase = .fields
            return false
        case .fields:
            if line.isEmpty { return true }
            try parseField(line, bytes)
            return false
        }
    }

    private mutating func parseField(_ line: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) {
        let parts = try HTTPFieldLine.split(line, bytes)
        guard head.fields.count < limits.fieldCount else { throw .tooManyFields }
        let kind = HTTPFieldLine.kind(of: parts.name, bytes)
        head.fields.append(HTTPHead.Field(name: parts.name, value: parts.value, kind: kind))
        try note(kind, parts.value, bytes)
    }
}

/// One field line, of a head or of a trailer section.
enum HTTPFieldLine {
    /// `line` is without its CRLF and not empty.
    static func split(
        _ line: HTTPSlice, _ bytes: Span<UInt8>
    ) throws(HTTPParseError) -> (name: HTTPSlice, value: HTTPSlice) {
        let end = Int(line.end)
        var colon = Int(line.start)
        if HTTPCharacters.isBlank(bytes[colon]) { throw .foldedField }
        while colon < end, HTTPCharacters.isToken(bytes[colon]) { colon += 1 }
        guard colon < end, colon > Int(line.start), bytes[colon] == UInt8(ascii: ":") else { throw .malformedField }
        for index in colon + 1..<end where !HTTPCharacters.isFieldContent(bytes[index]) {
            throw bytes[index] == HTTPCharacters.carriageReturn ? .malformedLineEnd : .malformedFieldValue
        }
        return (HTTPSlice(Int(line.start), colon), HTTPSlice(colon + 1, end).trimmed(in: bytes))
    }

    static func kind(of name: HTTPSlice, _ bytes: Span<UInt8>) -> HTTPHead.FieldKind {
        switch name.count {
        case 2: name.matches("te", in: bytes) ? .hopByHop : .other
        case 4: name.matches("host", in: bytes) ? .host : .other
        case 6: name.matches("expect", in: bytes) ? .expect : .other
        case 7: name.matches("upgrade", in: bytes) ? .upgrade : .other
        case 10:
            if name.matches("connection", in: bytes) {
                .connection
            } else {
                name.matches("keep-alive", in: bytes) ? .hopByHop : .other
            }
        case 12: name.matches("x-request-id", in: bytes) ? .requestID : .other
        case 14:
            if name.matches("content-length", in: bytes) {
                .contentLength
            } else {
                name.matches("http2-settings", in: bytes) ? .hopByHop : .other
            }
        case 16: name.matches("proxy-connection", in: bytes) ? .hopByHop : .other
        case 17: name.matches("transfer-encoding", in: bytes) ? .transferEncoding : .other
        case 23: isClientCertificate(name, bytes) ? .clientCertificate : .other
        default: .other
        }
    }

    /// Also with underscores: a CGI-like server sees no difference, and the caller must not be able to forge it.
    private static func isClientCertificate(_ name: HTTPSlice, _ bytes: Span<UInt8>) -> Bool {
        let wanted: StaticString = "x-forwarded-client-cert"
        for offset in 0..<wanted.utf8CodeUnitCount {
            let byte = HTTPCharacters.lowercased(bytes[Int(name.start) + offset])
            let same = byte == UInt8(ascii: "_") ? UInt8(ascii: "-") : byte
            if same != wanted.utf8Start[offset] { return false }
        }
        return true
    }
}
