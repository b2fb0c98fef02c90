import ArgumentParser
import Foundation
import MeshKernel

/// `culvert preflight`: can this machine run the node proxy, at which level, and what is missing.
struct PreflightCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "preflight",
        abstract: "Can this machine run the node proxy, and what is missing?",
        discussion: """
            Probes the kernel, tries the real programs and one captured connection in a scratch namespace, and leaves
            nothing behind. Run it as root; without privilege it says what it could not find out.

            Exit codes: 0 usable, 1 not usable, 2 bad usage, 3 could not find out.

            Examples:
              culvert preflight
              culvert preflight --cgroup /sys/fs/cgroup/mesh --output json
            """)

    @Option(help: "The cgroup the connect hooks will attach to (default: the root of cgroup2).")
    var cgroup: String?

    @Option(help: "Where the bpf file system is mounted.")
    var bpffs = "/sys/fs/bpf"

    @Option(help: "Print for people (text) or for programs (json).")
    var output = OutputFormat.text

    func run() throws {
        let report = Preflight.run(CaptureOptions(nodeName: "preflight", cgroupPath: cgroup, bpffsPath: bpffs))
        switch output {
        case .text: print(PreflightText(color: isatty(STDOUT_FILENO) == 1).render(report))
        case .json:
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(report), as: UTF8.self))
        }
        switch report.verdict {
        case .usable: return
        case .unusable: throw ExitCode(1)
        case .unknown: throw ExitCode(3)
        }
    }
}

/// The report as lines: status, title, finding; the remedy below what needs one; the verdict last.
struct PreflightText {
    let color: Bool

    func render(_ report: PreflightReport) -> String {
        let width = report.checks.map(\.title.count).max() ?? 0
        var lines: [String] = []
        for check in report.checks {
            let title = check.title.padding(toLength: width, withPad: " ", startingAt: 0)
            lines.append("\(label(check.status))  \(title)  \(check.detail)")
            if check.status != .ok && !check.remedy.isEmpty {
                lines.append("         \(String(repeating: " ", count: width))→ \(check.remedy)")
            }
        }
        lines.append("")
        lines.append(verdict(report))
        return lines.joined(separator: "\n")
    }

    private func verdict(_ report: PreflightReport) -> String {
        let required = report.checks.filter(\.required)
        func titles(_ status: PreflightReport.Status) -> String {
            required.filter { $0.status == status }.map(\.title).joined(separator: ", ")
        }
        switch report.verdict {
        case .usable:
            return "This machine can run culvert-node at level \(report.level?.rawValue ?? "-")."
        case .unusable:
            return "This machine cannot run culvert-node yet: \(titles(.fail))."
        case .unknown:
            return "Could not find out whether this machine can run culvert-node: \(titles(.unknown))."
        }
    }

    private func label(_ status: PreflightReport.Status) -> String {
        let (word, code) =
            switch status {
            case .ok: ("ok     ", 32)
            case .warn: ("warn   ", 33)
            case .fail: ("FAIL   ", 31)
            case .unknown: ("unknown", 35)
            }
        return color ? "\u{1b}[\(code)m\(word)\u{1b}[0m" : word
    }
}
