import Foundation
import MeshKernel

/// The report as lines: checks by group, below each what its absence costs and what to do; at the end, where the eye is
/// when the command returns, the level, the tiers, and what stands in the way of better.
struct PreflightText {
    let color: Bool
    let required: CaptureLevel?

    func render(_ report: PreflightReport) -> String {
        let machine = report.machine
        var lines = ["Linux \(machine.kernel) \(machine.architecture), \(machine.distribution)"]
        let width = report.checks.map(\.title.count).max().map { max($0, "00 checks".count) } ?? 0
        for group in PreflightReport.Group.allCases {
            let checks = report.checks.filter { $0.group == group }
            if checks.isEmpty { continue }
            lines += ["", paint(group.rawValue, 1)]
            for (check, titles) in Self.folded(checks) { lines += self.lines(check, titles, width) }
        }
        lines += ["", paint("result", 1)]
        lines += summary(report)
        return lines.joined(separator: "\n")
    }

    /// Checks that could not be made for one and the same reason are one line, under the first of them.
    static func folded(
        _ checks: [PreflightReport.Check]
    ) -> [(check: PreflightReport.Check, titles: [String])] {
        var folded: [(check: PreflightReport.Check, titles: [String])] = []
        for check in checks {
            let same = folded.firstIndex {
                check.status == .unknown && $0.check.status == .unknown && $0.check.detail == check.detail
                    && $0.check.remedy == check.remedy
            }
            if let same { folded[same].titles.append(check.title) } else { folded.append((check, [check.title])) }
        }
        return folded
    }

    private func lines(_ check: PreflightReport.Check, _ titles: [String], _ width: Int) -> [String] {
        let several = titles.count > 1
        let title = (several ? "\(titles.count) checks" : check.title)
            .padding(toLength: width, withPad: " ", startingAt: 0)
        var paragraphs = [check.detail]
        if several { paragraphs.append("these: \(titles.joined(separator: ", "))") }
        if check.status != .ok {
            let cost = several ? "" : Self.cost(check)
            if !cost.isEmpty { paragraphs.append("costs: \(cost)") }
            if !check.remedy.isEmpty { paragraphs.append("do:    \(check.remedy)") }
        }
        let margin = width + 13
        let text = paragraphs.flatMap { Self.wrapped($0, to: max(40, Self.columns - margin)) }
        let indent = String(repeating: " ", count: margin)
        return ["  \(label(check.status))  \(title)  \(text[0])"] + text.dropFirst().map { indent + $0 }
    }

    private static let columns = 120

    /// Breaks between words; what continues a paragraph is indented below its first line's text.
    static func wrapped(_ text: String, to width: Int) -> [String] {
        var lines = [""]
        for word in text.split(separator: " ", omittingEmptySubsequences: false) {
            let last = lines[lines.count - 1]
            if last.count + word.count + 1 > width && last.contains(where: { $0 != " " }) {
                lines.append("       \(word)")
            } else {
                lines[lines.count - 1] = last.isEmpty ? String(word) : "\(last) \(word)"
            }
        }
        return lines
    }

    /// `L0, L1; applications see EPERM`
    static func cost(_ check: PreflightReport.Check) -> String {
        let lost = check.status == .warn ? "" : check.neededBy.map(\.rawValue).joined(separator: ", ")
        return [lost, check.cost].filter { !$0.isEmpty }.joined(separator: "; ")
    }

    private func summary(_ report: PreflightReport) -> [String] {
        var lines: [String] = []
        switch (report.level, report.verdict) {
        case (let level?, _):
            lines.append("  This machine can run culvert-node at level \(level.rawValue): \(Self.words(level)).")
        case (nil, .unknown):
            lines.append("  Could not find out whether this machine can run culvert-node.")
        case (nil, _):
            lines.append("  This machine cannot run culvert-node yet: no level is usable.")
        }
        for fitness in report.uses {
            lines += self.lines(fitness, report)
        }
        lines += better(report)
        if let required, report.meets(required) != .usable {
            let known = report.meets(required) == .unusable
            lines += [
                "", "  Required: \(required.rawValue) or better: \(known ? "not reached" : "could not be found out").",
            ]
        }
        return lines
    }

    /// What to do for the best level offered that is not reached.
    private func better(_ report: PreflightReport) -> [String] {
        guard let use = report.offered.first, let wanted = use.level, report.level.map({ wanted < $0 }) ?? true else {
            return []
        }
        let blocking = report.obstacles(to: use)
        var steps: [(remedy: String, titles: [String])] = []
        for check in blocking where !check.remedy.isEmpty {
            let same = steps.firstIndex { $0.remedy == check.remedy }
            if let same { steps[same].titles.append(check.title) } else { steps.append((check.remedy, [check.title])) }
        }
        if steps.isEmpty { return [] }
        return ["", "  For \(wanted.rawValue):"]
            + steps.map { step in
                "    \(step.titles.count > 2 ? "\(step.titles.count) checks" : step.titles.joined(separator: ", ")): "
                    + step.remedy
            }
    }

    /// One use: whether it is there, and, if not, the checks in the way with what to do about each.
    private func lines(_ fitness: PreflightReport.Fitness, _ report: PreflightReport) -> [String] {
        let use = fitness.use
        let offered = report.offered.contains(use)
        let status: PreflightReport.Status =
            switch fitness.verdict {
            case .usable: .ok
            case .unusable: use == report.offered.first ? .fail : .warn
            case .unknown: .unknown
            }
        let blocking = report.obstacles(to: use)
        let named = blocking.prefix(4).map(\.title).joined(separator: ", ")
        let rest = blocking.count > 4 ? " and \(blocking.count - 4) more" : ""
        let word =
            switch fitness.verdict {
            case .usable:
                offered ? "usable" : "usable here, but this version of culvert-node does not have it"
            case .unusable: "lost for: \(named)\(rest)"
            case .unknown: "not known: \(blocking.count) checks could not be made"
            }
        return ["  \(label(status))  \(use.rawValue)  \(Self.words(use)): \(word)"]
    }

    private static func words(_ use: PreflightReport.Use) -> String {
        switch use {
        case .t1: "same-node connections without a proxy"
        case .t2: "same-node bytes around TCP, by workload"
        default: use.level.map(words) ?? use.rawValue
        }
    }

    private static func words(_ level: CaptureLevel) -> String {
        switch level {
        case .l0: "mark and sk_lookup"
        case .l1: "mark and sk_lookup with pass table"
        case .l2: "connect rewrite and nft"
        case .l3: "nft alone"
        }
    }

    private func label(_ status: PreflightReport.Status) -> String {
        switch status {
        case .ok: paint("ok     ", 32)
        case .warn: paint("warn   ", 33)
        case .fail: paint("FAIL   ", 31)
        case .unknown: paint("unknown", 35)
        }
    }

    private func paint(_ text: String, _ code: Int) -> String { color ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }
}
