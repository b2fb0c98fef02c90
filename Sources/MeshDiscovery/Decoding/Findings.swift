/// Collects everything found wrong in one reading. Bounded: past `ConfigurationLimits.findings` it only counts.
final class Findings {
    private(set) var errors: [ConfigurationError] = []
    private(set) var warnings: [ConfigurationError] = []
    private var omittedErrors = 0
    private var omittedWarnings = 0

    var hasErrors: Bool { !errors.isEmpty }

    func add(_ finding: ConfigurationError) {
        switch finding.severity {
        case .error where errors.count < ConfigurationLimits.findings: errors.append(finding)
        case .error: omittedErrors += 1
        case .warning where warnings.count < ConfigurationLimits.findings: warnings.append(finding)
        case .warning: omittedWarnings += 1
        }
    }

    /// In the order of files and lines, the last one saying how many were left out.
    func sorted(path: String) -> (errors: [ConfigurationError], warnings: [ConfigurationError]) {
        (
            Self.close(errors, omitted: omittedErrors, severity: .error, path: path),
            Self.close(warnings, omitted: omittedWarnings, severity: .warning, path: path)
        )
    }

    private static func close(
        _ findings: [ConfigurationError], omitted: Int, severity: ConfigurationError.Severity, path: String
    ) -> [ConfigurationError] {
        var sorted = findings.sorted()
        if omitted > 0 {
            let message = "\(omitted) more \(severity)s are not shown"
            sorted.append(ConfigurationError(severity: severity, file: path, line: 0, column: 0, message: message))
        }
        return sorted
    }
}

/// Where an object stands, for everything said about it.
final class ObjectReport {
    let file: String
    let line: Int
    let column: Int
    let findings: Findings
    var kind: String?
    var name: String?

    init(file: String, line: Int, column: Int, findings: Findings) {
        self.file = file
        self.line = line
        self.column = column
        self.findings = findings
    }

    func add(
        _ severity: ConfigurationError.Severity, line: Int? = nil, column: Int? = nil, field: String, _ message: String
    ) {
        findings.add(
            ConfigurationError(
                severity: severity, file: file, line: line ?? self.line, column: column ?? self.column, kind: kind,
                name: name, field: field, message: message))
    }
}
