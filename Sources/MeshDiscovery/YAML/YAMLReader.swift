import Yams

/// YAML that cannot be read, and where.
struct YAMLFailure: Error {
    let line: Int
    let column: Int
    let message: String
}

/// Cuts a file into documents and parses each one, so that an error in one does not hide the errors of the others.
///
/// Yams follows an alias by value, and compares mapping keys by hashing them whole: a key made of nested aliases would
/// take time exponential in the file's length. Therefore the parser never sees an alias: every `*` that could begin
/// one is replaced by a private character first. In a plain scalar of its own the character means an alias and is
/// followed here, with the size counted; anywhere else it is turned back into the `*` it was.
struct YAMLReader {
    /// U+E000: one scalar wide like `*`, so columns stay true; refused where a file contains it itself.
    private static let marker: Unicode.Scalar = "\u{E000}"

    private(set) var documents: [YAMLNode] = []
    private(set) var failures: [YAMLFailure] = []

    /// - Parameter limit: documents to read at most; one more is a failure and ends the reading.
    init(_ bytes: [UInt8], limit: Int = ConfigurationLimits.documents) {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            let line = Self.firstInvalidLine(of: bytes)
            failures.append(YAMLFailure(line: line, column: 1, message: "expected UTF-8 text, found other bytes"))
            return
        }
        if let position = text.unicodeScalars.firstIndex(of: Self.marker) {
            let line = text.unicodeScalars[..<position].count { $0 == "\n" } + 1
            failures.append(YAMLFailure(line: line, column: 1, message: "the character U+E000 is not accepted"))
            return
        }
        for (start, line) in Self.pieces(of: bytes) {
            if documents.count >= limit {
                let message = "expected at most \(ConfigurationLimits.documents) documents, found more"
                failures.append(YAMLFailure(line: line, column: 1, message: message))
                return
            }
            read(bytes[start], from: line)
        }
    }

    private mutating func read(_ bytes: ArraySlice<UInt8>, from firstLine: Int) {
        do {
            let parser = try Parser(yaml: Self.hidingAliases(bytes), resolver: .basic, encoding: .utf8)
            while let root = try parser.nextRoot() {
                var composer = Composer(offset: firstLine - 1)
                let node = try composer.compose(root)
                if node.size > ConfigurationLimits.valuesPerDocument {
                    let message =
                        "expected at most \(ConfigurationLimits.valuesPerDocument) values, aliases written out"
                    throw YAMLFailure(line: node.line, column: node.column, message: message)
                }
                documents.append(node)
            }
            // Nodes hold their anchors weakly: the parser owns them.
            withExtendedLifetime(parser) {}
        } catch let failure as YAMLFailure {
            failures.append(failure)
        } catch let error as YamlError {
            failures.append(YAMLFailure(error, offset: firstLine - 1))
        } catch {
            failures.append(YAMLFailure(line: firstLine, column: 1, message: "expected YAML: \(error)"))
        }
    }

    /// `---` in the first column always begins a document (YAML 1.2.2 §9.1.2): what lies between is parsed alone.
    private static func pieces(of bytes: [UInt8]) -> [(Range<Int>, line: Int)] {
        var pieces: [(Range<Int>, line: Int)] = []
        var start = 0
        var startLine = 1
        var line = 1
        var position = 0
        while position < bytes.count {
            let end = bytes[position...].firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? bytes.count
            if position > start, isSeparator(bytes[position..<end]) {
                pieces.append((start..<position, startLine))
                start = position
                startLine = line
            }
            position = end
            line += 1
        }
        if start < bytes.count { pieces.append((start..<bytes.count, startLine)) }
        return pieces
    }

    private static func isSeparator(_ line: ArraySlice<UInt8>) -> Bool {
        guard line.starts(with: "---".utf8) else { return false }
        guard let next = line.dropFirst(3).first else { return true }
        return next == UInt8(ascii: " ") || next == UInt8(ascii: "\t") || next == 0x0a || next == 0x0d
    }

    private static func hidingAliases(_ bytes: ArraySlice<UInt8>) -> String {
        guard bytes.contains(UInt8(ascii: "*")) else { return String(decoding: bytes, as: UTF8.self) }
        var hidden: [UInt8] = []
        hidden.reserveCapacity(bytes.count + 64)
        for index in bytes.indices {
            let next = index + 1 < bytes.endIndex ? bytes[index + 1] : 0
            if bytes[index] == UInt8(ascii: "*"), isAnchorByte(next) {
                hidden.append(contentsOf: String(marker).utf8)
            } else {
                hidden.append(bytes[index])
            }
        }
        return String(decoding: hidden, as: UTF8.self)
    }

    private static func isAnchorByte(_ byte: UInt8) -> Bool {
        (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a)
            || byte == UInt8(ascii: "_") || byte == UInt8(ascii: "-")
    }

    private static func firstInvalidLine(of bytes: [UInt8]) -> Int {
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        let good = lines.prefix { String(validating: $0, as: UTF8.self) != nil }
        return good.count + 1
    }

    /// Turns Yams nodes into ours.
    private struct Composer {
        let offset: Int
        private var anchors: [String: YAMLNode] = [:]

        init(offset: Int) {
            self.offset = offset
        }

        mutating func compose(_ node: Node) throws -> YAMLNode {
            let line = (node.mark?.line ?? 1) + offset
            let column = node.mark?.column ?? 1
            let made: YAMLNode
            switch node {
            case .scalar(let scalar):
                let isPlain = scalar.style == .plain
                let text = scalar.string
                if isPlain, text.unicodeScalars.first == marker { return try follow(text, line: line, column: column) }
                let isTyped = try isPlain && isUntagged(scalar.tag, line: line, column: column)
                made = YAMLNode(.scalar(restored(text), isPlain: isTyped), line: line, column: column)
            case .sequence(let sequence):
                made = YAMLNode(.sequence(try sequence.map { try compose($0) }), line: line, column: column)
            case .mapping(let mapping):
                let entries = try mapping.map { key, value in try compose(key, value, line: line, column: column) }
                made = YAMLNode(.mapping(entries), line: line, column: column)
            case .alias:
                throw YAMLFailure(line: line, column: column, message: "expected no alias here")
            }
            if let anchor = node.anchor { anchors[anchor.rawValue] = made }
            return made
        }

        private mutating func compose(_ key: Node, _ value: Node, line: Int, column: Int) throws -> YAMLNode.Entry {
            let line = key.mark.map { $0.line + offset } ?? line
            let column = key.mark?.column ?? column
            guard case .scalar(let scalar) = key, scalar.string.unicodeScalars.first != marker else {
                throw YAMLFailure(line: line, column: column, message: "expected text as the key of a mapping")
            }
            if scalar.string == "<<", scalar.style == .plain {
                throw YAMLFailure(line: line, column: column, message: "not supported yet: merge keys (<<)")
            }
            return YAMLNode.Entry(key: restored(scalar.string), line: line, column: column, value: try compose(value))
        }

        private func follow(_ text: String, line: Int, column: Int) throws -> YAMLNode {
            let name = String(text.unicodeScalars.dropFirst())
            if let node = anchors[name] { return node }
            let message = "alias *\(restored(name)) names no anchor above it; quote a value that begins with *"
            throw YAMLFailure(line: line, column: column, message: message)
        }

        /// `!!str` makes a plain scalar text; no other tag means anything to us.
        private func isUntagged(_ tag: Tag, line: Int, column: Int) throws -> Bool {
            switch tag.description {
            case Tag.Name.implicit.rawValue: return true
            case Tag.Name.str.rawValue: return false
            default:
                throw YAMLFailure(line: line, column: column, message: "expected no tag, found \(tag.description)")
            }
        }

        private func restored(_ text: String) -> String {
            text.unicodeScalars.contains(marker) ? text.replacing(String(marker), with: "*") : text
        }
    }
}

extension YAMLFailure {
    init(_ error: YamlError, offset: Int) {
        switch error {
        case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
            .composer(let context, let problem, let mark, _):
            let doing = context.map { "\($0.text): " } ?? ""
            self.init(line: mark.line + offset, column: mark.column, message: "expected YAML: \(doing)\(problem)")
        case .reader(let problem, let position, _, let text):
            let line = text.prefix(position ?? 0).count { $0.isNewline } + 1
            self.init(line: line + offset, column: 1, message: "expected YAML: \(problem)")
        case .duplicatedKeysInMapping(let keys, let context):
            let names = keys.map { $0.replacing("\u{E000}", with: "*") }.joined(separator: ", ")
            let message = "expected each key once, found again: \(names)"
            self.init(line: context.mark.line + offset, column: context.mark.column, message: message)
        default:
            self.init(line: offset + 1, column: 1, message: "expected YAML: \(error)")
        }
    }
}
