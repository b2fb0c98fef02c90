/// A YAML value that knows where it was written; aliases are already followed (and shared, not copied).
final class YAMLNode: Sendable {
    struct Entry: Sendable {
        let key: String
        let line: Int
        let column: Int
        let value: YAMLNode
    }

    enum Content: Sendable {
        /// `isPlain`: written without quotes, so that `true` is a boolean and `1` a number.
        case scalar(String, isPlain: Bool)
        case sequence([YAMLNode])
        case mapping([Entry])
    }

    let content: Content
    let line: Int
    let column: Int
    /// This value and all values in it, counted as if every alias were written out; stops at `Int.max`.
    let size: Int

    init(_ content: Content, line: Int, column: Int) {
        self.content = content
        self.line = line
        self.column = column
        size =
            switch content {
            case .scalar: 1
            case .sequence(let items): items.reduce(1) { Self.sum($0, $1.size) }
            case .mapping(let entries): entries.reduce(1) { Self.sum($0, $1.value.size) }
            }
    }

    private static func sum(_ left: Int, _ right: Int) -> Int {
        let (sum, overflow) = left.addingReportingOverflow(right)
        return overflow ? .max : sum
    }
}

/// What a scalar means to Kubernetes (YAML 1.1 as its parser reads it).
enum ScalarKind: Equatable {
    case null
    case boolean(Bool)
    case integer
    case decimal
    case text
}

extension YAMLNode {
    var scalarKind: ScalarKind? {
        guard case .scalar(let text, let isPlain) = content else { return nil }
        return isPlain ? ScalarKind(plain: text) : .text
    }

    /// Absent to Kubernetes: `field:` and `field: null`.
    var isNull: Bool { scalarKind == .null }

    /// How a message names this value.
    var summary: String {
        switch content {
        case .mapping: return "a mapping"
        case .sequence: return "a list"
        case .scalar(let text, _):
            let shown = text.utf8.count > 60 ? "\(text.prefix(60))…" : text
            return switch scalarKind {
            case .null: "nothing"
            case .boolean: "the boolean \(shown)"
            case .integer, .decimal: "the number \(shown)"
            default: "\"\(shown)\""
            }
        }
    }
}

extension ScalarKind {
    init(plain text: String) {
        switch text {
        case "", "~", "null", "Null", "NULL": self = .null
        case "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON": self = .boolean(true)
        case "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF": self = .boolean(false)
        case ".inf", ".Inf", ".INF", "+.inf", "-.inf", ".nan", ".NaN", ".NAN": self = .decimal
        default: self = Self.number(Array(text.utf8)) ?? .text
        }
    }

    private static func number(_ bytes: [UInt8]) -> ScalarKind? {
        var digits = bytes[...]
        if digits.first == UInt8(ascii: "-") || digits.first == UInt8(ascii: "+") { digits = digits.dropFirst() }
        guard let first = digits.first, first == UInt8(ascii: ".") || isDigit(first) else { return nil }
        if digits.allSatisfy(isDigit) { return .integer }
        if digits.starts(with: "0x".utf8) {
            return digits.count > 2 && digits.dropFirst(2).allSatisfy(\.isHexDigit) ? .integer : nil
        }
        var hasDigit = false
        var hasPoint = false
        var rest = digits
        while let byte = rest.first {
            if isDigit(byte) {
                hasDigit = true
            } else if byte == UInt8(ascii: "."), !hasPoint {
                hasPoint = true
            } else {
                break
            }
            rest = rest.dropFirst()
        }
        guard hasDigit else { return nil }
        if rest.isEmpty { return .decimal }
        guard rest.first == UInt8(ascii: "e") || rest.first == UInt8(ascii: "E") else { return nil }
        rest = rest.dropFirst()
        if rest.first == UInt8(ascii: "-") || rest.first == UInt8(ascii: "+") { rest = rest.dropFirst() }
        return !rest.isEmpty && rest.allSatisfy(isDigit) ? .decimal : nil
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
}

extension UInt8 {
    fileprivate var isHexDigit: Bool {
        (self >= 0x30 && self <= 0x39) || (self | 0x20 >= 0x61 && self | 0x20 <= 0x66)
    }
}
