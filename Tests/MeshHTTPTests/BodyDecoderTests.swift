import Testing

@testable import MeshHTTP

@Suite struct BodyDecoderTests {
    private func chunked(_ text: String, keepsFraming: Bool = true) -> DecodedBody {
        decode([UInt8](text), .chunked, keepsFraming: keepsFraming)
    }

    @Test func lengthEndsTheBody() {
        let body = decode([UInt8]("helloGET"), .length(5))
        #expect(body == DecodedBody(status: .complete, output: [UInt8]("hello"), rest: [UInt8]("GET"), content: 5))
        #expect(decode([UInt8]("hell"), .length(5)).status == .needMore)
        #expect(decode([], .length(0)).status == .complete)
        #expect(
            decode([UInt8]("x"), .none) == DecodedBody(status: .complete, output: [], rest: [UInt8]("x"), content: 0))
    }

    @Test func untilCloseEndsWithTheStream() {
        var decoder = BodyDecoder(.untilClose, limits: HTTPCodecLimits())
        #expect(!decoder.isComplete)
        let isWhole = decoder.endOfStream()
        #expect(isWhole && decoder.isComplete)
        var cut = BodyDecoder(.length(3), limits: HTTPCodecLimits())
        let isCutWhole = cut.endOfStream()
        #expect(!isCutWhole)
    }

    @Test func canonicalChunksPassAsTheyAre() {
        let text = "5\r\nhello\r\na\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n"
        let body = chunked(text + "next")
        #expect(body.status == .complete && body.output.text == text && body.rest.text == "next" && body.content == 15)
    }

    @Test func extensionsAndLeadingZerosAreTakenOut() {
        let body = chunked("005;a=\"b\"\r\nhello\r\n1 ; c\r\n!\r\n000\r\n\r\n")
        #expect(body.output.text == "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n")
    }

    @Test func framingCanBeTakenOutAltogether() {
        let body = chunked("5;x\r\nhello\r\n6\r\n world\r\n0\r\na: b\r\n\r\n", keepsFraming: false)
        #expect(body.status == .complete && body.output.text == "hello world")
    }

    @Test(arguments: [
        "Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", "X-Forwarded-Client-Cert: URI=spiffe://x",
        "x_forwarded_client_cert: a", "Authorization: a", "Cookie: a", "Trailer: a", "X-Request-ID: a", "Connection: a",
    ])
    func trailersThatMustNotPassAreTakenOut(field: String) {
        let body = chunked("0\r\nx-a: 1\r\n\(field)\r\nx-b: 2\r\n\r\n")
        #expect(body.status == .complete && body.output.text == "0\r\nx-a: 1\r\nx-b: 2\r\n\r\n")
    }

    static let malformed: [(String, HTTPParseError)] = [
        ("\r\n", .malformedChunk), ("g\r\n", .malformedChunk), ("-5\r\n", .malformedChunk), ("+5\r\n", .malformedChunk),
        ("0x5\r\n", .malformedChunk), (" 5\r\n", .malformedChunk), ("5 \r\n", .malformedChunk),
        ("5\nhello", .malformedLineEnd), ("5\r\r\n", .malformedChunk), ("5;a\rb\r\n", .malformedChunk),
        ("5;a\nb\r\n", .malformedLineEnd), ("5;\u{0}\r\n", .malformedChunk),
        ("5\r\nhelloX\r\n", .malformedChunk), ("5\r\nhello\n", .malformedChunk), ("5\r\nhello\rX", .malformedChunk),
        ("5\r\nhello6\r\n", .malformedChunk), ("ffffffffffffffff\r\n", .chunkTooLarge),
        ("0000000000000001\r\n", .chunkTooLarge), ("0\r\n a: b\r\n\r\n", .malformedTrailer),
        ("0\r\na b: c\r\n\r\n", .malformedTrailer), ("0\r\nGET / HTTP/1.1\r\n\r\n", .malformedTrailer),
        ("0\r\na: b\n\r\n", .malformedLineEnd), ("0\r\na: \u{1}\r\n\r\n", .malformedTrailer),
        ("1;\(String(repeating: "a", count: 1100))", .chunkExtensionTooLarge),
        ("0\r\na: \(String(repeating: "a", count: 9000))", .trailerTooLarge),
        ("0\r\n\(String(repeating: "a: b\r\n", count: 33))", .trailerTooLarge),
        (String(repeating: "1;\(String(repeating: "a", count: 1000))\r\nx\r\n", count: 17), .chunkExtensionTooLarge),
    ]

    @Test(arguments: malformed.indices)
    func malformedBodiesAreRefused(index: Int) {
        let (text, error) = Self.malformed[index]
        let bytes = [UInt8](text)
        #expect(chunked(text).status == .failed(error))
        #expect(decode(bytes, .chunked, cuts: Array(1..<bytes.count)).status == .failed(error))
    }

    @Test func everySplitGivesTheSame() {
        let bytes = [UInt8]("3;e=1\r\nabc\r\n01\r\nd\r\n0;z\r\nx: y\r\nhost: q\r\nz: w\r\n\r\nGET / HTTP/1.1\r\n")
        for keepsFraming in [true, false] {
            let whole = decode(bytes, .chunked, keepsFraming: keepsFraming)
            #expect(whole.status == .complete)
            for first in 1..<bytes.count {
                for drainsEarly in [true, false] {
                    var split = decode(
                        bytes, .chunked, cuts: [first], keepsFraming: keepsFraming, drainsEarly: drainsEarly)
                    // Bytes that came after the end were not given to the decoder when it ended in the first piece.
                    if split.rest.count < whole.rest.count { split.rest = whole.rest }
                    #expect(split == whole)
                }
            }
            let dripped = decode(bytes, .chunked, cuts: Array(1..<bytes.count), keepsFraming: keepsFraming)
            #expect(dripped.output == whole.output && dripped.content == whole.content)
        }
    }
}
