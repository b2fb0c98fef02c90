/// How a log line is written.
public enum LogFormat: String, Sendable, CaseIterable {
    case json
    case text
}

/// Builds one log line: time, level, scope and message, then fields in the order they are given.
///
/// JSON is one object (RFC 8259). Text is four columns between tabs and then `key=value` pairs, strings quoted with
/// the same escapes, so that nothing a peer sends can end a line or forge a field.
struct LineEncoder: ~Copyable {
    private let format: LogFormat
    private(set) var bytes: [UInt8]
    private var isFirstField = true

    /// Lines are appended to `bytes`.
    init(_ format: LogFormat, appendingTo bytes: consuming [UInt8]) {
        self.format = format
        self.bytes = bytes
    }

    mutating func begin(time: Timestamp, level: String, scope: String, message: String) {
        isFirstField = true
        switch format {
        case .json:
            literal("{\"level\":")
            quoted(level)
            literal(",\"time\":\"")
            time.append(to: &bytes)
            literal("\",\"scope\":")
            quoted(scope)
            literal(",\"message\":")
            quoted(message)
        case .text:
            time.append(to: &bytes)
            for column in [level, scope, message] {
                bytes.append(UInt8(ascii: "\t"))
                escaped(column)
            }
            bytes.append(UInt8(ascii: "\t"))
        }
    }

    mutating func field(_ name: String, _ value: String?) {
        guard let value else { return }
        key(name)
        quoted(value)
    }

    mutating func field(_ name: String, _ value: UInt64) {
        key(name)
        bytes.appendDecimal(value)
    }

    mutating func end() {
        if format == .json { bytes.append(UInt8(ascii: "}")) }
        bytes.append(UInt8(ascii: "\n"))
    }

    consuming func finish() -> [UInt8] { bytes }

    private mutating func key(_ name: String) {
        switch format {
        case .json:
            bytes.append(UInt8(ascii: ","))
            quoted(name)
            bytes.append(UInt8(ascii: ":"))
        case .text:
            if !isFirstField { bytes.append(UInt8(ascii: " ")) }
            escaped(name)
            bytes.append(UInt8(ascii: "="))
        }
        isFirstField = false
    }

    private mutating func literal(_ text: StaticString) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    private mutating func quoted(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        escaped(text)
        bytes.append(UInt8(ascii: "\""))
    }

    /// RFC 8259 §7; DEL is escaped too, as terminals act on it. Almost all text needs no escape and is copied whole.
    private mutating func escaped(_ text: String) {
        var text = text
        text.withUTF8 { text in
            if text.contains(where: LineEncoder.isSpecial) {
                for byte in text { escaped(byte) }
            } else {
                bytes.append(contentsOf: text)
            }
        }
    }

    private static func isSpecial(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == 0x7f || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
    }

    private mutating func escaped(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"):
            bytes.append(UInt8(ascii: "\\"))
            bytes.append(byte)
        case UInt8(ascii: "\n"): literal("\\n")
        case UInt8(ascii: "\r"): literal("\\r")
        case UInt8(ascii: "\t"): literal("\\t")
        case 0..<0x20, 0x7f:
            literal("\\u00")
            bytes.append(LineEncoder.hexadecimal(byte >> 4))
            bytes.append(LineEncoder.hexadecimal(byte & 0xf))
        default: bytes.append(byte)
        }
    }

    private static func hexadecimal(_ digit: UInt8) -> UInt8 {
        digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
    }
}
