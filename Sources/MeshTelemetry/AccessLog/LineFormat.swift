internal import MeshModel

/// How a log line is written.
public enum LogFormat: String, Sendable, CaseIterable {
    case json
    case text
}

/// Writes log lines one behind the other: time, level, scope and message, then fields in the order they are given.
///
/// JSON is one object (RFC 8259). Text is four columns between tabs and then `key=value` pairs, strings quoted with
/// the same escapes, so that nothing a peer sends can end a line or forge a field.
struct LineEncoder: ~Copyable {
    private let format: LogFormat
    private var bytes = LineBytes()
    private var isFirstField = true

    init(_ format: LogFormat) { self.format = format }

    /// All lines since the last `removeAll()`.
    var written: UnsafeBufferPointer<UInt8> { bytes.written }

    mutating func removeAll() { bytes.removeAll() }

    mutating func begin(time: Timestamp, level: String, scope: String, message: String) {
        isFirstField = true
        switch format {
        case .json:
            bytes.append("{\"level\":")
            quoted(level)
            bytes.append(",\"time\":\"")
            time.append(to: &bytes)
            bytes.append("\",\"scope\":")
            quoted(scope)
            bytes.append(",\"message\":")
            quoted(message)
        case .text:
            time.append(to: &bytes)
            bytes.append("\t")
            escaped(level)
            bytes.append("\t")
            escaped(scope)
            bytes.append("\t")
            escaped(message)
            bytes.append("\t")
        }
    }

    mutating func end() { bytes.append(format == .json ? "}\n" : "\n") }

    // MARK: Fields. A name that is known ahead needs no escape.

    mutating func field(_ name: StaticString, _ value: String?) {
        guard let value else { return }
        key(name)
        quoted(value)
    }

    mutating func field(_ name: StaticString, _ value: UInt64) {
        key(name)
        bytes.append(decimal: value)
    }

    /// A number with its unit, as a string.
    mutating func field(_ name: StaticString, _ value: UInt64, _ unit: StaticString) {
        key(name)
        bytes.append("\"")
        bytes.append(decimal: value)
        bytes.append(unit)
        bytes.append("\"")
    }

    mutating func field(_ name: StaticString, _ value: SocketAddress?) {
        guard let value else { return }
        key(name)
        bytes.append("\"")
        if value.ip.isIPv4 {
            for group: UInt64 in 0..<4 {
                bytes.append(decimal: value.ip.low >> (24 - 8 * group) & 0xff)
                bytes.append(group == 3 ? ":" : ".")
            }
            bytes.append(decimal: UInt64(value.port))
        } else {
            escaped(value.description)
        }
        bytes.append("\"")
    }

    mutating func field(_ name: StaticString, _ value: SPIFFEID?) {
        guard let value else { return }
        key(name)
        bytes.append("\"spiffe://")
        escaped(value.trustDomain)
        bytes.append("/ns/")
        escaped(value.namespace)
        bytes.append("/sa/")
        escaped(value.serviceAccount)
        bytes.append("\"")
    }

    mutating func field(named name: String, _ value: String) {
        separator()
        if format == .json { quoted(name) } else { escaped(name) }
        bytes.append(format == .json ? ":" : "=")
        quoted(value)
    }

    @inline(__always)
    private mutating func key(_ name: StaticString) {
        separator()
        if format == .json { bytes.append("\"") }
        bytes.append(name)
        bytes.append(format == .json ? "\":" : "=")
    }

    private mutating func separator() {
        if format == .json {
            bytes.append(",")
        } else if !isFirstField {
            bytes.append(" ")
        }
        isFirstField = false
    }

    // MARK: Escapes

    private mutating func quoted(_ text: String) {
        bytes.append("\"")
        escaped(text)
        bytes.append("\"")
    }

    /// RFC 8259 §7; DEL is escaped too, as terminals act on it. Almost all text needs no escape and is copied whole.
    private mutating func escaped(_ text: String) {
        var text = text
        text.withUTF8 { text in
            // No early end: a loop without one is done many bytes at a time.
            var special: UInt8 = 0
            for byte in text { special |= LineEncoder.isSpecial(byte) ? 1 : 0 }
            if special == 0 {
                bytes.append(text)
            } else {
                for byte in text { escaped(byte) }
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
        case UInt8(ascii: "\n"): bytes.append("\\n")
        case UInt8(ascii: "\r"): bytes.append("\\r")
        case UInt8(ascii: "\t"): bytes.append("\\t")
        case 0..<0x20, 0x7f:
            bytes.append("\\u00")
            bytes.append(LineEncoder.hexadecimal(byte >> 4))
            bytes.append(LineEncoder.hexadecimal(byte & 0xf))
        default: bytes.append(byte)
        }
    }

    private static func hexadecimal(_ digit: UInt8) -> UInt8 {
        digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
    }
}
