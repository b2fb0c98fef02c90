/// What the fields of a head mean for framing and for the connection (RFC 9112 §6, §9).
extension HTTPHeadParser {
    /// Looks at a field when it is parsed.
    mutating func note(
        _ kind: HTTPHead.FieldKind, _ value: HTTPSlice, _ bytes: Span<UInt8>
    ) throws(HTTPParseError) {
        switch kind {
        case .host where role == .request:
            hostCount += 1
            guard hostCount == 1 else { throw .repeatedHost }
            guard HTTPAuthority.isValid(value, bytes) else { throw .malformedHost }
            // The authority of absolute-form wins over Host (RFC 9112 §3.2.2).
            if !head.isAbsoluteForm { head.authority = value }
        case .contentLength:
            contentLengthCount += 1
            // Two equal ones may be folded into one by RFC 9110 §8.6; a sender that makes them is not to be trusted.
            guard contentLengthCount == 1, let length = Self.decimal(value, bytes) else {
                throw .malformedContentLength
            }
            head.contentLength = length
        case .transferEncoding:
            transferEncodingCount += 1
            guard transferEncodingCount == 1, value.matches("chunked", in: bytes) else {
                throw .unsupportedTransferEncoding
            }
            head.isChunked = true
        case .expect where role == .request:
            if value.matches("100-continue", in: bytes) { head.expectsContinue = true }
        default:
            break
        }
    }

    /// Looks at the head as a whole when its empty line is there.
    mutating func finish(_ bytes: Span<UInt8>) throws(HTTPParseError) {
        if head.isChunked {
            // HTTP/1.0 knows no transfer codings: whoever passed this on may have seen no body (RFC 9112 §6.1).
            guard head.minorVersion == 1 else { throw .unsupportedTransferEncoding }
            guard head.contentLength == nil else { throw .conflictingFraming }
        }
        if role == .request, hostCount == 0, head.minorVersion == 1 { throw .missingHost }
        let options = try readConnectionOptions(bytes)
        head.isPersistent = !options.close && (head.minorVersion == 1 || options.keepAlive)
        guard options.upgrade, head.minorVersion == 1, upgradesToWebSocket(bytes) else { return }
        switch role {
        case .request:
            let hasBody = head.isChunked || head.contentLength ?? 0 > 0
            head.wantsWebSocket = !hasBody && head.method.equals("GET", in: bytes)
        case .response:
            head.acceptsWebSocket = head.status == 101
        }
    }

    private func upgradesToWebSocket(_ bytes: Span<UInt8>) -> Bool {
        var count = 0
        var matches = false
        for field in head.fields where field.kind == .upgrade {
            count += 1
            matches = field.value.matches("websocket", in: bytes)
        }
        return count == 1 && matches
    }

    private mutating func readConnectionOptions(
        _ bytes: Span<UInt8>
    ) throws(HTTPParseError) -> (close: Bool, keepAlive: Bool, upgrade: Bool) {
        var options = (close: false, keepAlive: false, upgrade: false)
        var count = 0
        for index in head.fields.indices where head.fields[index].kind == .connection {
            let end = Int(head.fields[index].value.end)
            var start = Int(head.fields[index].value.start)
            while start < end {
                var comma = start
                while comma < end, bytes[comma] != UInt8(ascii: ",") { comma += 1 }
                let option = HTTPSlice(start, comma).trimmed(in: bytes)
                start = comma + 1
                if option.isEmpty { continue }
                count += 1
                guard count <= limits.connectionOptions else { throw .malformedConnection }
                for position in option.range where !HTTPCharacters.isToken(bytes[position]) {
                    throw .malformedConnection
                }
                if option.matches("close", in: bytes) {
                    options.close = true
                } else if option.matches("keep-alive", in: bytes) {
                    options.keepAlive = true
                } else if option.matches("upgrade", in: bytes) {
                    options.upgrade = true
                } else {
                    markListed(option, bytes)
                }
            }
        }
        return options
    }

    private mutating func markListed(_ option: HTTPSlice, _ bytes: Span<UInt8>) {
        for index in head.fields.indices where head.fields[index].name.matches(option, in: bytes) {
            head.fields[index].isListed = true
        }
    }

    /// `1*DIGIT` and nothing else, below 10^18 so that no sum of lengths can overflow.
    private static func decimal(_ value: HTTPSlice, _ bytes: Span<UInt8>) -> UInt64? {
        guard (1...18).contains(value.count) else { return nil }
        var number: UInt64 = 0
        for index in value.range {
            guard HTTPCharacters.isDigit(bytes[index]) else { return nil }
            number = number * 10 + UInt64(bytes[index] - 0x30)
        }
        return number
    }
}
