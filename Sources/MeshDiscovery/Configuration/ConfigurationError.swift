/// One thing wrong (or, as a warning, suspicious) in the configuration, and where.
public struct ConfigurationError: Error, Hashable, Sendable {
    public enum Severity: String, Sendable {
        /// The configuration is refused.
        case error
        /// Accepted, but probably not what its author meant.
        case warning
    }

    public var severity: Severity
    public var file: String
    /// From 1; 0 when the whole file is meant.
    public var line: Int
    /// From 1, in Unicode scalars; 0 when the whole file is meant.
    public var column: Int
    /// `Workload`, …; nil when the document did not get as far as saying.
    public var kind: String?
    /// `namespace/name`, or the bare name of an object without namespace.
    public var name: String?
    /// The path of the field: `spec.rules[0].from`; empty when the object as a whole is meant.
    public var field: String
    /// What was expected.
    public var message: String

    public init(
        severity: Severity = .error, file: String, line: Int, column: Int, kind: String? = nil, name: String? = nil,
        field: String = "", message: String
    ) {
        self.severity = severity
        self.file = file
        self.line = line
        self.column = column
        self.kind = kind.map(Self.printable)
        self.name = name.map(Self.printable)
        self.field = Self.printable(field)
        self.message = Self.printable(message)
    }

    /// What files say is quoted in messages: it must not move a terminal's cursor, forge a line of a log, or be as
    /// long as the file.
    private static func printable(_ text: String) -> String {
        let limit = 1_000
        func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar.properties.generalCategory == .control }
        let isLong = text.utf8.count > limit
        if !isLong, !text.unicodeScalars.contains(where: isControl) { return text }
        let shown = text.unicodeScalars.prefix(limit).map { isControl($0) ? $0.escaped(asASCII: true) : String($0) }
        return shown.joined() + (isLong ? "…" : "")
    }
}

extension ConfigurationError: CustomStringConvertible {
    /// `file:line: kind ns/name: field: expected …`
    public var description: String {
        var text = line > 0 ? "\(file):\(line): " : "\(file): "
        if severity == .warning { text += "warning: " }
        if let kind { text += name.map { "\(kind) \($0): " } ?? "\(kind): " }
        if !field.isEmpty { text += "\(field): " }
        return text + message
    }
}

extension ConfigurationError: Comparable {
    public static func < (left: ConfigurationError, right: ConfigurationError) -> Bool {
        (left.file, left.line, left.column, left.field, left.message)
            < (right.file, right.line, right.column, right.field, right.message)
    }
}

/// Why there is no configuration.
public enum ConfigurationFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The path could not be read, so nothing can be said about its contents.
    case unreadable(path: String, reason: String)
    /// It was read and refused; every error found, in the order of files and lines.
    case invalid([ConfigurationError])

    public var description: String {
        switch self {
        case .unreadable(let path, let reason): "\(path): cannot read the configuration: \(reason)"
        case .invalid(let errors): errors.map(\.description).joined(separator: "\n")
        }
    }
}

/// Bounds of what is read, so that no file can exhaust the control thread. Going past one is an error in the file.
enum ConfigurationLimits {
    static let fileBytes = 8 * 1024 * 1024
    static let files = 10_000
    static let documents = 100_000
    /// Values of one document with every alias written out: stops alias bombs.
    static let valuesPerDocument = 2_000_000
    /// Errors and warnings reported in one reading; one more line says that there are others.
    static let findings = 1_000
}
