import Testing

@testable import MeshHTTP

@Suite struct RequestHeadTests {
    @Test func readsAPlainRequest() {
        let head = parse("GET /a/b?c=d HTTP/1.1\r\nHost: shop.example:8080\r\nAccept:  text/html \t\r\n\r\nrest")
        #expect(head.progress == .complete(72))
        #expect(head.method == "GET")
        #expect(head.target == "/a/b?c=d")
        #expect(head.authority == "shop.example:8080")
        #expect(head.fields == ["Host=shop.example:8080", "Accept=text/html"])
        #expect(head.persistent)
        #expect(head.length == nil && !head.chunked)
    }

    @Test func ignoresOneEmptyLineBeforeARequest() {
        #expect(parse("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").method == "GET")
        #expect(parse("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").progress == .failed(.malformedMethod))
    }

    @Test(arguments: [
        ("GET http://a.b:80/x?y HTTP/1.1\r\nHost: ignored\r\n\r\n", "a.b:80", "/x?y"),
        ("GET HTTP://a HTTP/1.1\r\nHost: ignored\r\n\r\n", "a", ""),
        ("GET https://[::1]:8443?q HTTP/1.1\r\nHost: i\r\n\r\n", "[::1]:8443", "?q"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "a", "*"),
        ("GET //a HTTP/1.1\r\nHost: h\r\n\r\n", "h", "//a"),
    ])
    func readsTheFormsOfATarget(text: String, authority: String, target: String) {
        let head = parse(text)
        #expect(head.authority == authority)
        #expect(head.target == target)
    }

    @Test(arguments: [
        ("HTTP/1.1", "", true), ("HTTP/1.1", "close", false), ("HTTP/1.1", "keep-alive, CLOSE", false),
        ("HTTP/1.1", "foo", true), ("HTTP/1.0", "", false), ("HTTP/1.0", "Keep-Alive", true),
        ("HTTP/1.0", "close, keep-alive", false),
    ])
    func persistenceFollowsVersionAndConnection(version: String, connection: String, expected: Bool) {
        let field = connection.isEmpty ? "" : "Connection: \(connection)\r\n"
        #expect(parse("GET / \(version)\r\nHost: a\r\n\(field)\r\n").persistent == expected)
    }

    @Test func httpOneZeroNeedsNoHost() {
        #expect(parse("GET / HTTP/1.0\r\n\r\n").progress == .complete(18))
    }

    @Test func onlyAGetWithoutBodyUpgradesToWebSocket() {
        let tail = "Host: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n"
        #expect(parse("GET / HTTP/1.1\r\n\(tail)\r\n").webSocket)
        #expect(!parse("POST / HTTP/1.1\r\n\(tail)\r\n").webSocket)
        #expect(!parse("GET / HTTP/1.1\r\n\(tail)Content-Length: 1\r\n\r\n").webSocket)
        #expect(!parse("GET / HTTP/1.1\r\n\(tail)Upgrade: h2c\r\n\r\n").webSocket)
        #expect(!parse("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n").webSocket)
        #expect(!parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").webSocket)
    }

    @Test func limitsHaveTheirOwnStatuses() {
        let start = "GET / HTTP/1.1\r\nHost: a\r\n"
        var limits = HTTPCodecLimits()
        limits.headBytes = 1000
        limits.targetBytes = 100
        limits.fieldCount = 5
        func status(_ text: String) -> HTTPHeadParser.Progress { parse([UInt8](text), limits: limits).progress }
        #expect(status("GET /\(String(repeating: "a", count: 100)) HTTP/1.1\r\n") == .failed(.targetTooLong))
        #expect(status("GET /\(String(repeating: "a", count: 500))") == .failed(.targetTooLong))
        #expect(status(start + "a: \(String(repeating: "b", count: 1000))") == .failed(.headTooLarge))
        #expect(status(start + String(repeating: "a: b\r\n", count: 5)) == .failed(.tooManyFields))
        #expect(HTTPParseError.targetTooLong.requestStatus == 414)
        #expect(HTTPParseError.headTooLarge.requestStatus == 431)
        #expect(HTTPParseError.tooManyFields.requestStatus == 431)
    }

    @Test func fieldsNamedByConnectionAreMarked() {
        var parser = HTTPHeadParser(.request, limits: HTTPCodecLimits())
        let bytes = [UInt8]("GET / HTTP/1.1\r\nhost: a\r\nX-One: 1\r\nX-Two: 2\r\nconnection: x-one,, close\r\n\r\n")
        #expect(parser.parse(bytes.span) == .complete(bytes.count))
        #expect(parser.head.fields.map(\.isListed) == [false, true, false, false])
    }

    @Test func aParserIsReusable() {
        var parser = HTTPHeadParser(.request, limits: HTTPCodecLimits())
        let first = [UInt8]("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-Continue\r\n\r\n")
        #expect(parser.parse(first.span) == .complete(first.count))
        #expect(parser.head.expectsContinue && parser.head.contentLength == 3)
        parser.reset()
        let second = [UInt8]("GET /two HTTP/1.1\r\nhost: b\r\n\r\n")
        #expect(parser.parse(second.span) == .complete(second.count))
        #expect(!parser.head.expectsContinue && parser.head.contentLength == nil && parser.head.fields.count == 1)
    }
}

@Suite struct ResponseHeadTests {
    @Test(arguments: [
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", BodyFraming.length(5)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", .chunked),
        ("HTTP/1.1 200\r\n\r\n", .untilClose), ("HTTP/1.0 200 \r\n\r\n", .untilClose),
        ("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n", .none),
        ("HTTP/1.1 304 Not\r\ncontent-length: 5\r\n\r\n", .none),
        ("HTTP/1.1 100 Continue\r\n\r\n", .none),
    ])
    func framingFollowsStatusAndFields(text: String, expected: BodyFraming) {
        var parser = HTTPHeadParser(.response, limits: HTTPCodecLimits())
        let bytes = [UInt8](text)
        #expect(parser.parse(bytes.span) == .complete(bytes.count))
        #expect(parser.head.responseFraming(toHEAD: false) == expected)
        #expect(parser.head.responseFraming(toHEAD: true) == .none)
    }

    @Test(arguments: [
        ("HTTP/1.1 20 OK\r\n\r\n", HTTPParseError.malformedStartLine),
        ("HTTP/1.1 2000 OK\r\n\r\n", .malformedStartLine),
        ("HTTP/1.1 099 OK\r\n\r\n", .malformedStartLine), ("HTTP/2.0 200 OK\r\n\r\n", .unsupportedVersion),
        ("ICY 200 OK\r\n\r\n", .malformedStartLine), ("\r\nHTTP/1.1 200 OK\r\n\r\n", .malformedStartLine),
        ("HTTP/1.1 200 O\u{0}K\r\n\r\n", .malformedStartLine), ("HTTP/1.1 200 OK\n\r\n", .malformedLineEnd),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", .foldedField),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", .malformedContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", .conflictingFraming),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", .unsupportedTransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", .unsupportedTransferEncoding),
    ])
    func malformedResponsesAreRefused(text: String, expected: HTTPParseError) {
        #expect(parse(text, .response).progress == .failed(expected))
    }
}
