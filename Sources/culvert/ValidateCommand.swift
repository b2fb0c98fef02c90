import ArgumentParser
import Foundation
import MeshDiscovery

/// `culvert validate PATH`: says offline what `culvert-node --config PATH` would say.
struct ValidateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "validate",
        abstract: "Check configuration offline, exactly as the daemons read it.",
        discussion: """
            PATH is a file, or a directory whose *.yaml and *.yml are read. Prints every error and every warning with \
            its file and line, then how many objects of each kind there are.

            EXAMPLES:
              culvert validate /etc/culvert
              culvert validate mesh.yaml --output json | jq '.errors[].message'

            EXIT STATUS:
              0 valid (there may be warnings), 1 errors found, 2 bad usage, 3 the path could not be read
            """)

    @Argument(help: "A YAML file or a directory of them.")
    var path: String

    @Option(name: .shortAndLong, help: "Output format: text or json.")
    var output: OutputFormat = .text

    func run() throws {
        let reading: ConfigurationReading
        do throws(ConfigurationFailure) {
            reading = try ConfigurationReading(path: path)
        } catch {
            report(unreadable: error)
            throw ExitCode(3)
        }
        switch output {
        case .text: print(Self.text(reading, path: path))
        case .json: print(try Self.json(ValidationReport(reading, path: path)))
        }
        if !reading.isValid { throw ExitCode(1) }
    }

    private func report(unreadable failure: ConfigurationFailure) {
        if output == .json, let text = try? Self.json(ValidationReport(unreadable: failure, path: path)) { print(text) }
        FileHandle.standardError.write(Data("culvert validate: \(failure)\n".utf8))
    }

    private static func text(_ reading: ConfigurationReading, path: String) -> String {
        var lines = (reading.errors + reading.warnings).map(\.description)
        let counts = reading.counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }
        lines.append(counts.isEmpty ? "no objects" : counts.joined(separator: ", "))
        let warnings = reading.warnings.isEmpty ? "" : ", \(count(reading.warnings.count, "warning"))"
        lines.append(
            reading.isValid
                ? "\(path): valid\(warnings)" : "\(path): not valid: \(count(reading.errors.count, "error"))\(warnings)"
        )
        return lines.joined(separator: "\n")
    }

    private static func count(_ number: Int, _ noun: String) -> String {
        "\(number) \(noun)\(number == 1 ? "" : "s")"
    }

    private static func json(_ report: ValidationReport) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(report), as: UTF8.self)
    }
}

/// The shape of `--output json`.
private struct ValidationReport: Encodable {
    struct Finding: Encodable {
        let file: String
        /// Absent when the whole file is meant.
        let line: Int?
        let column: Int?
        let kind: String?
        let name: String?
        let field: String?
        let message: String

        init(_ error: ConfigurationError) {
            file = error.file
            line = error.line > 0 ? error.line : nil
            column = error.column > 0 ? error.column : nil
            kind = error.kind
            name = error.name
            field = error.field.isEmpty ? nil : error.field
            message = error.message
        }
    }

    let path: String
    /// `valid`, `invalid` or `unreadable`.
    let verdict: String
    /// Why it could not be read.
    let reason: String?
    let objects: [String: Int]
    let errors: [Finding]
    let warnings: [Finding]

    init(_ reading: ConfigurationReading, path: String) {
        self.path = path
        verdict = reading.isValid ? "valid" : "invalid"
        reason = nil
        objects = reading.counts
        errors = reading.errors.map(Finding.init)
        warnings = reading.warnings.map(Finding.init)
    }

    init(unreadable failure: ConfigurationFailure, path: String) {
        self.path = path
        verdict = "unreadable"
        reason = failure.description
        objects = [:]
        errors = []
        warnings = []
    }
}
