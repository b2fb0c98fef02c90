import Testing

@testable import MeshHTTP

/// One request that must be refused, and why.
struct Vector: CustomTestStringConvertible {
    let name: String
    let text: String
    let error: HTTPParseError

    init(_ name: String, _ text: String, _ error: HTTPParseError) {
        self.name = name
        self.text = text
        self.error = error
    }

    /// A request whose start line and Host are fine.
    init(_ name: String, fields: String, _ error: HTTPParseError) {
        self.init(name, "POST / HTTP/1.1\r\nHost: a\r\n\(fields)\r\n\r\n", error)
    }

    var testDescription: String { name }
}

@Suite struct SmugglingTests {
    static let framing: [Vector] = [
        Vector("CL and TE", fields: "Content-Length: 5\r\nTransfer-Encoding: chunked", .conflictingFraming),
        Vector("TE and CL", fields: "Transfer-Encoding: chunked\r\nContent-Length: 5", .conflictingFraming),
        Vector("CL twice, different", fields: "Content-Length: 5\r\nContent-Length: 6", .malformedContentLength),
        Vector("CL twice, equal", fields: "Content-Length: 5\r\nContent-Length: 5", .malformedContentLength),
        Vector("CL list", fields: "Content-Length: 5, 5", .malformedContentLength),
        Vector("CL plus", fields: "Content-Length: +5", .malformedContentLength),
        Vector("CL minus", fields: "Content-Length: -5", .malformedContentLength),
        Vector("CL hex", fields: "Content-Length: 0x5", .malformedContentLength),
        Vector("CL inner blank", fields: "Content-Length: 5 6", .malformedContentLength),
        Vector("CL empty", fields: "Content-Length:", .malformedContentLength),
        Vector("CL underscore", fields: "Content-Length: 1_0", .malformedContentLength),
        Vector("CL overflow", fields: "Content-Length: 18446744073709551621", .malformedContentLength),
        Vector("CL decimal point", fields: "Content-Length: 5.0", .malformedContentLength),
        Vector("CL other digits", fields: "Content-Length: \u{0665}", .malformedContentLength),
        Vector("TE identity", fields: "Transfer-Encoding: identity", .unsupportedTransferEncoding),
        Vector("TE gzip, chunked", fields: "Transfer-Encoding: gzip, chunked", .unsupportedTransferEncoding),
        Vector("TE chunked, identity", fields: "Transfer-Encoding: chunked, identity", .unsupportedTransferEncoding),
        Vector("TE chunked twice", fields: "Transfer-Encoding: chunked, chunked", .unsupportedTransferEncoding),
        Vector(
            "TE two lines", fields: "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            .unsupportedTransferEncoding),
        Vector(
            "TE second line identity", fields: "Transfer-Encoding: chunked\r\nTransfer-encoding: x",
            .unsupportedTransferEncoding),
        Vector("TE xchunked", fields: "Transfer-Encoding: xchunked", .unsupportedTransferEncoding),
        Vector("TE quoted", fields: "Transfer-Encoding: \"chunked\"", .unsupportedTransferEncoding),
        Vector("TE parameter", fields: "Transfer-Encoding: chunked;a=b", .unsupportedTransferEncoding),
        Vector("TE trailing comma", fields: "Transfer-Encoding: chunked,", .unsupportedTransferEncoding),
        Vector("TE empty", fields: "Transfer-Encoding:", .unsupportedTransferEncoding),
        Vector("TE vertical tab", fields: "Transfer-Encoding: \u{0b}chunked", .malformedFieldValue),
        Vector("TE folded", fields: "Transfer-Encoding:\r\n chunked", .unsupportedTransferEncoding),
        Vector("TE blank before colon", fields: "Transfer-Encoding : chunked", .malformedField),
        Vector("TE tab before colon", fields: "Transfer-Encoding\t: chunked", .malformedField),
        Vector("TE leading blank", fields: " Transfer-Encoding: chunked", .foldedField),
        Vector("TE with NUL in name", fields: "Transfer-Encoding\u{0}: chunked", .malformedField),
        Vector(
            "TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            .unsupportedTransferEncoding),
    ]

    static let lines: [Vector] = [
        Vector("bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", .malformedLineEnd),
        Vector("bare LF after field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", .malformedLineEnd),
        Vector("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", .malformedLineEnd),
        Vector("bare CR in value", fields: "X: a\rY: b", .malformedLineEnd),
        Vector("CR CR LF", fields: "X: a\r", .malformedLineEnd),
        Vector("bare CR in request line", "GET /\rHTTP/1.1\r\nHost: a\r\n\r\n", .malformedLineEnd),
        Vector("NUL in value", fields: "X: a\u{0}b", .malformedFieldValue),
        Vector("DEL in value", fields: "X: a\u{7f}b", .malformedFieldValue),
        Vector("escape in value", fields: "X: a\u{1b}b", .malformedFieldValue),
        Vector("folded", fields: "X: a\r\n b", .foldedField),
        Vector("folded with tab", fields: "X: a\r\n\tb", .foldedField),
        Vector("first field folded", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", .foldedField),
        Vector("no colon", fields: "Nonsense", .malformedField),
        Vector("empty name", fields: ": value", .malformedField),
        Vector("name with slash", fields: "a/b: c", .malformedField),
        Vector("name beyond ASCII", fields: "X\u{e9}: c", .malformedField),
        Vector("Connection with a bad token", fields: "Connection: a b", .malformedConnection),
        Vector(
            "Connection with too many", fields: "Connection: \(String(repeating: "a,", count: 65))",
            .malformedConnection),
    ]

    static let startLines: [Vector] = [
        Vector("no Host", "GET / HTTP/1.1\r\n\r\n", .missingHost),
        Vector("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", .repeatedHost),
        Vector("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", .repeatedHost),
        Vector("empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", .malformedHost),
        Vector("Host with blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", .malformedHost),
        Vector("Host list", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", .malformedHost),
        Vector("Host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", .malformedHost),
        Vector("Host bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", .malformedHost),
        Vector("Host port too large", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", .malformedHost),
        Vector("Host bad brackets", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", .malformedHost),
        Vector("Host text in brackets", "GET / HTTP/1.1\r\nHost: [abc]x\r\n\r\n", .malformedHost),
        Vector("absolute-form without Host", "GET http://a/ HTTP/1.1\r\n\r\n", .missingHost),
        Vector("absolute-form with user", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("absolute-form empty host", "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("authority-form", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("asterisk with GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("asterisk and more", "OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("fragment", "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("target beyond ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", .malformedTarget),
        Vector("tab for space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", .malformedMethod),
        Vector("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", .malformedStartLine),
        Vector("space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", .malformedStartLine),
        Vector("trailing space", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", .malformedStartLine),
        Vector("leading space", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", .malformedMethod),
        Vector("method with colon", "GE:T / HTTP/1.1\r\nHost: a\r\n\r\n", .malformedMethod),
        Vector("method too long", "\(String(repeating: "A", count: 33)) / HTTP/1.1\r\n\r\n", .malformedMethod),
        Vector("HTTP/0.9", "GET /\r\n", .malformedStartLine),
        Vector("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", .malformedStartLine),
        Vector("version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", .unsupportedVersion),
        Vector("version 1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", .malformedStartLine),
        Vector("version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", .unsupportedVersion),
        Vector("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", .unsupportedVersion),
        Vector("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", .connectNotSupported),
    ]

    @Test(arguments: framing + lines + startLines)
    func isRefused(_ vector: Vector) {
        #expect(parse(vector.text).progress == .failed(vector.error))
        #expect([400, 405, 505].contains(vector.error.requestStatus))
    }

    @Test(arguments: framing + lines + startLines)
    func isRefusedTheSameByteByByte(_ vector: Vector) {
        let bytes = [UInt8](vector.text)
        #expect(parse(bytes, cuts: Array(1..<bytes.count)).progress == .failed(vector.error))
    }

    @Test func errorsHaveTexts() {
        let texts = Set(HTTPParseError.allCases.map { $0.explanation.description })
        #expect(texts.count == HTTPParseError.allCases.count)
    }
}
