/// One value of an object with its path; reading it as the wrong type reports an error and gives nil.
struct Field {
    let node: YAMLNode
    let path: String
    let report: ObjectReport

    func fail(_ message: String) {
        report.add(.error, line: node.line, column: node.column, field: path, message)
    }

    func warn(_ message: String) {
        report.add(.warning, line: node.line, column: node.column, field: path, message)
    }

    /// Refuses an option whose feature does not exist yet, by its name.
    func refuse(_ what: String) {
        fail("not supported yet: \(what)")
    }

    private func mismatch<T>(_ expected: String, hint: String = "") -> T? {
        fail("expected \(expected), found \(node.summary)\(hint)")
        return nil
    }

    func text(_ expected: String = "text") -> String? {
        guard case .scalar(let text, _) = node.content, let kind = node.scalarKind else { return mismatch(expected) }
        switch kind {
        case .text: return text
        case .null: return mismatch(expected)
        case .boolean, .integer, .decimal: return mismatch(expected, hint: " (text needs quotes here)")
        }
    }

    /// Text that `parse` understands.
    func value<Value>(_ expected: String, _ parse: (String) -> Value?) -> Value? {
        guard let text = text(expected) else { return nil }
        guard let value = parse(text) else { return mismatch(expected) }
        return value
    }

    func boolean() -> Bool? {
        guard case .boolean(let value) = node.scalarKind else { return mismatch("true or false") }
        return value
    }

    func integer(_ range: ClosedRange<Int>, _ expected: String) -> Int? {
        guard case .scalar(let text, _) = node.content, node.scalarKind == .integer, let value = Int(text),
            range.contains(value)
        else { return mismatch(expected) }
        return value
    }

    func port() -> UInt16? {
        integer(1...65535, "a port from 1 to 65535").map { UInt16($0) }
    }

    /// - Parameter limit: where Kubernetes bounds the list, so do we.
    func items(_ expected: String = "a list", atMost limit: Int = .max) -> [Field]? {
        guard case .sequence(let nodes) = node.content else { return mismatch(expected) }
        if nodes.count > limit {
            fail("expected at most \(limit) entries, found \(nodes.count)")
            return nil
        }
        return nodes.enumerated().map { position, node in
            Field(node: node, path: "\(path)[\(position)]", report: report)
        }
    }

    /// A list with at least one entry.
    func someItems(_ expected: String, atMost limit: Int = .max) -> [Field]? {
        guard let items = items("a list of \(expected)", atMost: limit) else { return nil }
        if items.isEmpty { return mismatch("at least one entry: \(expected)", hint: " without entries") }
        return items
    }

    func fields(_ expected: String = "a mapping") -> Fields? {
        guard case .mapping(let entries) = node.content else { return mismatch(expected) }
        return Fields(entries, of: self)
    }

    /// A mapping of text to text, like labels.
    func textMap() -> [String: String]? {
        guard let fields = fields("a mapping of text to text") else { return nil }
        var map: [String: String] = [:]
        for (key, field) in fields.all() {
            if let text = field.text() { map[key] = text }
        }
        return map
    }
}

/// The fields of a mapping. Every field must be asked for, ignored or refused by name: `end` reports the others.
final class Fields {
    private let entries: [YAMLNode.Entry]
    private var isTaken: [Bool]
    private var known: [String] = []
    let whole: Field

    init(_ entries: [YAMLNode.Entry], of whole: Field) {
        self.entries = entries
        self.whole = whole
        isTaken = Array(repeating: false, count: entries.count)
    }

    private func field(_ entry: YAMLNode.Entry) -> Field {
        let path = whole.path.isEmpty ? entry.key : "\(whole.path).\(entry.key)"
        return Field(node: entry.value, path: path, report: whole.report)
    }

    private func take(_ name: String) -> YAMLNode.Entry? {
        guard let position = entries.firstIndex(where: { $0.key == name }) else { return nil }
        isTaken[position] = true
        return entries[position]
    }

    /// nil when the field is absent or null.
    func optional(_ name: String) -> Field? {
        known.append(name)
        guard let entry = take(name), !entry.value.isNull else { return nil }
        return field(entry)
    }

    func required(_ name: String, _ expected: String) -> Field? {
        if let field = optional(name) { return field }
        let path = whole.path.isEmpty ? name : "\(whole.path).\(name)"
        let node = whole.node
        whole.report.add(
            .error, line: node.line, column: node.column, field: path, "missing, expected \(expected)")
        return nil
    }

    /// Fields whose meaning is fixed or not ours: whatever they hold is fine.
    func ignore(_ names: String...) {
        for name in names { _ = take(name) }
    }

    /// Fields of features that do not exist yet. `unless` accepts the value that asks for nothing.
    func refuse(_ names: String..., reason: String? = nil, unless isHarmless: (Field) -> Bool = { _ in false }) {
        for name in names {
            guard let entry = take(name), !entry.value.isNull else { continue }
            let field = field(entry)
            if isHarmless(field) { continue }
            whole.report.add(
                .error, line: entry.line, column: entry.column, field: field.path,
                "not supported yet: \(reason ?? name)")
        }
    }

    /// Every field, for mappings whose keys are names.
    func all() -> [(key: String, field: Field)] {
        isTaken = Array(repeating: true, count: entries.count)
        return entries.map { ($0.key, field($0)) }
    }

    func end() {
        for (position, entry) in entries.enumerated() where !isTaken[position] {
            let expected = known.isEmpty ? "expected no fields" : "expected one of: \(known.joined(separator: ", "))"
            whole.report.add(
                .error, line: entry.line, column: entry.column, field: field(entry).path, "unknown field, \(expected)")
        }
    }
}
