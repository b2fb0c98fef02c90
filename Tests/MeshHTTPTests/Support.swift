@testable import MeshHTTP

/// A small seeded generator (SplitMix64), so that every random test can be run again from its printed seed.
struct Chance: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
        return value ^ value >> 31
    }
}

extension [UInt8] {
    init(_ text: String) { self = Array(text.utf8) }

    var text: String { String(decoding: self, as: UTF8.self) }
}

/// What a parser makes of a head, as values that can be compared.
struct ParsedHead: Equatable {
    var progress: HTTPHeadParser.Progress
    var method = ""
    var target = ""
    var authority = ""
    var status = 0
    var fields: [String] = []
    var chunked = false
    var length: UInt64?
    var persistent = false
    var webSocket = false
}

/// Parses `bytes` given in one piece, or in pieces that end at `cuts`.
func parse(
    _ bytes: [UInt8], _ role: HTTPHeadParser.Role = .request, cuts: [Int] = [],
    limits: HTTPCodecLimits = HTTPCodecLimits()
) -> ParsedHead {
    var parser = HTTPHeadParser(role, limits: limits)
    var progress = HTTPHeadParser.Progress.needMore
    for end in cuts + [bytes.count] {
        progress = parser.parse(Array(bytes[..<end]).span)
        if progress != .needMore { break }
    }
    var result = ParsedHead(progress: progress)
    guard case .complete = progress else { return result }
    let head = parser.head
    result.method = head.method.text(in: bytes.span)
    result.target = head.target.text(in: bytes.span)
    result.authority = head.authority.text(in: bytes.span)
    result.status = head.status
    result.fields = head.fields.map { "\($0.name.text(in: bytes.span))=\($0.value.text(in: bytes.span))" }
    result.chunked = head.isChunked
    result.length = head.contentLength
    result.persistent = head.isPersistent
    result.webSocket = head.wantsWebSocket || head.acceptsWebSocket
    return result
}

func parse(_ text: String, _ role: HTTPHeadParser.Role = .request) -> ParsedHead { parse([UInt8](text), role) }

/// What comes out of a body decoder that is fed `bytes` in pieces.
struct DecodedBody: Equatable {
    var status: BodyDecoder.Status
    var output: [UInt8]
    /// Bytes after the body.
    var rest: [UInt8]
    var content: UInt64
}

func decode(
    _ bytes: [UInt8], _ framing: BodyFraming, cuts: [Int] = [], keepsFraming: Bool = true, drainsEarly: Bool = true,
    limits: HTTPCodecLimits = HTTPCodecLimits()
) -> DecodedBody {
    var decoder = BodyDecoder(framing, keepsFraming: keepsFraming, limits: limits)
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count + 1, alignment: 1)
    defer { buffer.deallocate() }
    var output: [UInt8] = []
    var (start, write, read, end) = (0, 0, 0, 0)
    var status = BodyDecoder.Status.needMore
    for cut in cuts + [bytes.count] where status == .needMore {
        for index in end..<cut { buffer[index] = bytes[index] }
        end = cut
        status = decoder.decode(buffer, write: &write, read: &read, end: end)
        if drainsEarly {
            output += buffer[start..<write]
            start = write
            if case .failed = status {} else { (start, write) = (read, read) }
        }
    }
    output += buffer[start..<write]
    return DecodedBody(
        status: status, output: output, rest: Array(buffer[read..<end]), content: decoder.contentBytes)
}
