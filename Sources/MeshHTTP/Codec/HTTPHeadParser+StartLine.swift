/// Start lines (RFC 9112 §3 and §4). A line is without its CRLF.
extension HTTPHeadParser {
    mutating func parseRequestLine(_ line: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) {
        let end = Int(line.end)
        var index = Int(line.start)
        while index < end, HTTPCharacters.isToken(bytes[index]) { index += 1 }
        head.method = HTTPSlice(Int(line.start), index)
        guard !head.method.isEmpty, head.method.count <= limits.methodBytes else { throw .malformedMethod }
        guard index < end else { throw .malformedStartLine }
        guard bytes[index] == HTTPCharacters.space else { throw misplaced(bytes[index], otherwise: .malformedMethod) }

        let targetStart = index + 1
        index = targetStart
        while index < end, HTTPCharacters.isTarget(bytes[index]) { index += 1 }
        let target = HTTPSlice(targetStart, index)
        guard target.count <= limits.targetBytes else { throw .targetTooLong }
        guard index < end, !target.isEmpty else { throw .malformedStartLine }
        guard bytes[index] == HTTPCharacters.space else { throw misplaced(bytes[index], otherwise: .malformedTarget) }

        head.minorVersion = try version(HTTPSlice(index + 1, end), bytes)
        // After the version, so that the preface of HTTP/2 (`PRI * HTTP/2.0`) is named for what it is.
        try parseTarget(target, bytes)
    }

    /// The two forms a service behind us is asked in become origin-form and an authority (RFC 9112 §3.2).
    private mutating func parseTarget(_ target: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) {
        if head.method.count == 7, isConnect(bytes) { throw .connectNotSupported }
        switch bytes[Int(target.start)] {
        case UInt8(ascii: "/"):
            head.target = target
        case UInt8(ascii: "*"):
            guard target.count == 1, isOptions(bytes) else { throw .malformedTarget }
            head.target = target
        default:
            try parseAbsoluteForm(target, bytes)
        }
        var end = Int(head.target.start)
        while end < Int(head.target.end), bytes[end] != UInt8(ascii: "?") { end += 1 }
        head.path = HTTPSlice(Int(head.target.start), end)
    }

    private mutating func parseAbsoluteForm(_ target: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) {
        let start: Int
        if target.hasPrefix("http://", in: bytes) {
            start = Int(target.start) + 7
        } else if target.hasPrefix("https://", in: bytes) {
            start = Int(target.start) + 8
        } else {
            throw .malformedTarget
        }
        var end = start
        while end < Int(target.end), bytes[end] != UInt8(ascii: "/"), bytes[end] != UInt8(ascii: "?") { end += 1 }
        let authority = HTTPSlice(start, end)
        // User information does not pass `isValid`, as RFC 9110 §4.2.4 wants.
        guard HTTPAuthority.isValid(authority, bytes) else { throw .malformedTarget }
        head.authority = authority
        head.isAbsoluteForm = true
        head.target = HTTPSlice(end, Int(target.end))
    }

    mutating func parseStatusLine(_ line: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) {
        let start = Int(line.start)
        let end = Int(line.end)
        // `HTTP/1.1 200`: 12 bytes. The space before an empty phrase is required, yet often left out.
        guard line.count >= 12, bytes[start + 8] == HTTPCharacters.space else { throw .malformedStartLine }
        head.minorVersion = try version(HTTPSlice(start, start + 8), bytes)
        var status = 0
        for index in start + 9..<start + 12 {
            guard HTTPCharacters.isDigit(bytes[index]) else { throw .malformedStartLine }
            status = status * 10 + Int(bytes[index] - 0x30)
        }
        guard status >= 100 else { throw .malformedStartLine }
        head.status = status
        guard end > start + 12 else { return }
        guard bytes[start + 12] == HTTPCharacters.space else { throw .malformedStartLine }
        for index in start + 13..<end where !HTTPCharacters.isFieldContent(bytes[index]) { throw .malformedStartLine }
        head.phrase = HTTPSlice(start + 13, end)
    }

    /// The minor version of `HTTP/1.0` and `HTTP/1.1`, the only ones served.
    private func version(_ word: HTTPSlice, _ bytes: Span<UInt8>) throws(HTTPParseError) -> UInt8 {
        let name: StaticString = "HTTP/"
        let start = Int(word.start)
        guard word.count == 8 else { throw .malformedStartLine }
        for offset in 0..<5 where bytes[start + offset] != name.utf8Start[offset] { throw .malformedStartLine }
        let major = bytes[start + 5]
        let minor = bytes[start + 7]
        guard HTTPCharacters.isDigit(major), bytes[start + 6] == UInt8(ascii: "."), HTTPCharacters.isDigit(minor) else {
            throw .malformedStartLine
        }
        guard major == UInt8(ascii: "1"), minor <= UInt8(ascii: "1") else { throw .unsupportedVersion }
        return minor - 0x30
    }

    private func misplaced(_ byte: UInt8, otherwise error: HTTPParseError) -> HTTPParseError {
        byte == HTTPCharacters.carriageReturn ? .malformedLineEnd : error
    }

    // Methods are compared with case (RFC 9110 §9.1).
    private func isConnect(_ bytes: Span<UInt8>) -> Bool { head.method.equals("CONNECT", in: bytes) }
    private func isOptions(_ bytes: Span<UInt8>) -> Bool { head.method.equals("OPTIONS", in: bytes) }
}

extension HTTPSlice {
    /// Whether the bytes are `text`, with regard to case.
    func equals(_ text: StaticString, in bytes: Span<UInt8>) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        for offset in 0..<count where bytes[Int(start) + offset] != text.utf8Start[offset] { return false }
        return true
    }

    /// Whether the bytes begin with `text`, which is given in lower case, without regard to case.
    func hasPrefix(_ text: StaticString, in bytes: Span<UInt8>) -> Bool {
        let length = text.utf8CodeUnitCount
        return count >= length && HTTPSlice(Int(start), Int(start) + length).matches(text, in: bytes)
    }
}

/// `host [":" port]` without user information (RFC 9110 §4.2.1: an empty host is invalid for http).
enum HTTPAuthority {
    static func isValid(_ authority: HTTPSlice, _ bytes: Span<UInt8>) -> Bool {
        guard let hostEnd = hostEnd(authority, bytes) else { return false }
        let end = Int(authority.end)
        if hostEnd == end { return true }
        guard bytes[hostEnd] == UInt8(ascii: ":"), (1...5).contains(end - hostEnd - 1) else { return false }
        var port = 0
        for index in hostEnd + 1..<end {
            guard HTTPCharacters.isDigit(bytes[index]) else { return false }
            port = port * 10 + Int(bytes[index] - 0x30)
        }
        return port <= 65535
    }

    /// Where the host ends, nil where there is no valid one.
    static func hostEnd(_ authority: HTTPSlice, _ bytes: Span<UInt8>) -> Int? {
        let start = Int(authority.start)
        let end = Int(authority.end)
        guard start < end else { return nil }
        var index = start
        if bytes[start] == UInt8(ascii: "[") {
            var colons = 0
            index += 1
            while index < end, bytes[index] != UInt8(ascii: "]") {
                let byte = bytes[index]
                if byte == UInt8(ascii: ":") { colons += 1 }
                guard HTTPCharacters.hexValue(byte) != nil || byte == UInt8(ascii: ":") || byte == UInt8(ascii: ".")
                else { return nil }
                index += 1
            }
            guard index < end, colons >= 2, index - start <= 46 else { return nil }
            return index + 1
        }
        while index < end, HTTPCharacters.isRegisteredName(bytes[index]) { index += 1 }
        return index > start && index - start <= 255 ? index : nil
    }
}
