import Foundation
import MeshTestKit

/// Tells what the demo does: as text while it happens, or as one JSON object at the end.
final class DemoReport {
    private struct Summary: Encodable {
        struct Step: Encodable {
            let id: String
            let title: String
            let proves: String
            let passed: Bool
            let evidence: [String]
            let milliseconds: Int
        }

        var passed: Bool
        var steps: [Step] = []
        /// Why there are no steps.
        var error: String?
    }

    private let format: OutputFormat
    private let colours: Bool
    private var summary = Summary(passed: true)
    private var count = 0

    var passed: Bool { summary.passed }

    init(format: OutputFormat) {
        self.format = format
        let environment = ProcessInfo.processInfo.environment
        colours = isatty(STDOUT_FILENO) == 1 && environment["NO_COLOR"] == nil && environment["TERM"] != "dumb"
    }

    func progress(_ text: String) {
        say("  \(text)")
    }

    func setUpFailed(_ text: String) {
        summary = Summary(passed: false, error: text)
        FileHandle.standardError.write(Data("culvert demo: \(text)\n".utf8))
        if format == .json { printJSON() }
    }

    func begin(_ mesh: DemoMesh, steps: Int) {
        count = steps
        say("\(mesh.lab.nodes.count) nodes and \(mesh.lab.pods.count) workloads are up (lab \(mesh.lab.token))\n")
    }

    func starts(_ step: DemoStep) {
        say("\(bold("[\(summary.steps.count + 1)/\(count)] \(step.title)")) (\(step.id))")
        say("      \(step.proves)")
    }

    func ended(_ step: DemoStep, _ result: DemoStep.Result) {
        let passed = result.evidence.passed
        for line in result.evidence.lines {
            let mark =
                switch line.holds {
                case true?: green("✓")
                case false?: red("✗")
                case nil: "·"
                }
            say("      \(mark) \(line.text.replacingOccurrences(of: "\n", with: "\n        "))")
        }
        let verdict = passed ? green("passed") : red("FAILED")
        say("      \(verdict) in \(result.duration.milliseconds) ms\n")
        summary.passed = summary.passed && passed
        summary.steps.append(
            Summary.Step(
                id: step.id, title: step.title, proves: step.proves, passed: passed,
                evidence: result.evidence.lines.map { ($0.holds == false ? "FAILED: " : "") + $0.text },
                milliseconds: result.duration.milliseconds))
    }

    func explain(_ mesh: DemoMesh) {
        say(bold("It is still running. To look around:"))
        for (text, command) in mesh.hints { say("  # \(text)\n  \(command)") }
        say("  # remove it\n  culvert demo --cleanup\n")
    }

    func end() {
        if format == .json { return printJSON() }
        let good = summary.steps.count { $0.passed }
        let verdict = "\(good) of \(summary.steps.count) steps passed"
        say(summary.passed ? green(bold(verdict)) : red(bold(verdict)))
    }

    private func printJSON() {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        // Strings, numbers and booleans alone: encoding them cannot fail.
        guard let data = try? encoder.encode(summary) else { return }
        print(String(decoding: data, as: UTF8.self))
    }

    /// Written at once, also into a pipe: whoever watches sees the step that hangs.
    private func say(_ text: String) {
        guard format == .text else { return }
        FileHandle.standardOutput.write(Data("\(text)\n".utf8))
    }

    private func paint(_ code: String, _ text: String) -> String { colours ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }
    private func bold(_ text: String) -> String { paint("1", text) }
    private func green(_ text: String) -> String { paint("32", text) }
    private func red(_ text: String) -> String { paint("31", text) }
}
