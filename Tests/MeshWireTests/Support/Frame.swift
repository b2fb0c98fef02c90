/// A frame as it stands on the wire (RFC 9113 §4.1), for peers that do what no codec would do.
struct Frame {
    var type: UInt8
    var flags: UInt8 = 0
    var stream: Int32 = 0
    var payload: [UInt8] = []

    var bytes: [UInt8] {
        let length = payload.count
        return [UInt8(truncatingIfNeeded: length >> 16), UInt8(truncatingIfNeeded: length >> 8), UInt8(length & 0xff)]
            + [type, flags] + Self.word(UInt32(bitPattern: stream)) + payload
    }

    static func word(_ value: UInt32) -> [UInt8] {
        [UInt8(value >> 24), UInt8(value >> 16 & 0xff), UInt8(value >> 8 & 0xff), UInt8(value & 0xff)]
    }

    static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + settings().bytes

    static func settings(ack: Bool = false) -> Frame { Frame(type: 4, flags: ack ? 1 : 0) }
    static func ping() -> Frame { Frame(type: 6, payload: Array(repeating: 7, count: 8)) }
    static func reset(_ stream: Int32, _ code: UInt32 = 8) -> Frame {
        Frame(type: 3, stream: stream, payload: word(code))
    }
    static func data(_ stream: Int32, _ payload: [UInt8], end: Bool = false) -> Frame {
        Frame(type: 0, flags: end ? 1 : 0, stream: stream, payload: payload)
    }

    /// HEADERS with literal fields that stay out of the tables (RFC 7541 §6.2.2).
    static func headers(_ stream: Int32, _ fields: [(String, String)], end: Bool = false, endHeaders: Bool = true)
        -> Frame
    {
        Frame(type: 1, flags: (end ? 1 : 0) | (endHeaders ? 4 : 0), stream: stream, payload: block(fields))
    }

    static func connect(_ stream: Int32) -> Frame {
        headers(stream, [(":method", "CONNECT"), (":authority", "10.0.0.1:80")])
    }

    static func block(_ fields: [(String, String)]) -> [UInt8] {
        fields.flatMap { name, value in [0] + string(name) + string(value) }
    }

    private static func string(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        if bytes.count < 127 { return [UInt8(bytes.count)] + bytes }
        var rest = bytes.count - 127
        var length: [UInt8] = [127]
        while rest >= 128 {
            length.append(UInt8(rest & 127 | 128))
            rest >>= 7
        }
        return length + [UInt8(rest)] + bytes
    }

    /// Splits what a session produced into frames; a server's output has no preface.
    static func parse(_ bytes: [UInt8]) -> [Frame] {
        var rest = bytes[...]
        var frames: [Frame] = []
        while rest.count >= 9 {
            let head = Array(rest.prefix(9))
            let length = Int(head[0]) << 16 | Int(head[1]) << 8 | Int(head[2])
            let stream = head[5...8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
            let payload = Array(rest.dropFirst(9).prefix(length))
            frames.append(Frame(type: head[3], flags: head[4], stream: Int32(bitPattern: stream), payload: payload))
            rest = rest.dropFirst(9 + length)
        }
        return frames
    }
}
