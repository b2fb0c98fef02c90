import MeshModel

/// An explanation for people: what is wrong first, then each kind of traffic with its way, its hooks and its counters,
/// then the neighbours.
struct CaptureText {
    let color: Bool
    /// Also what the workload cannot have, and counters at zero.
    let isFull: Bool

    private static let columns = 120
    private static let red = 31
    private static let bold = 1
    private static let dim = 2

    func render(_ answer: CaptureExplanation) -> String {
        var lines = [headline(answer)] + facts(answer)
        if let route = answer.route {
            lines += ["", paint("TO \(route.destination)", Self.bold)]
            lines += item("  \(Self.padded(route.tier ?? "-", 4))", "\(route.flow): \(route.steps.first ?? "")")
            lines += route.steps.dropFirst().flatMap { item("      then ", $0) }
        }
        // Asked for one way, that row alone.
        if let route = answer.route, !isFull {
            lines += [""] + answer.flows.filter { $0.id == route.flow }.flatMap(self.lines)
            return lines.joined(separator: "\n")
        }
        for direction in CaptureExplanation.Direction.allCases {
            let flows = answer.flows.filter { $0.direction == direction }
            if flows.isEmpty { continue }
            lines += ["", paint(Self.title(direction), Self.bold)]
            lines += flows.flatMap(self.lines)
        }
        if !answer.neighbours.isEmpty {
            lines += ["", paint("SAME NODE: connections of the workload to", Self.bold)]
            let width = answer.neighbours.map(\.name.count).max() ?? 0
            lines += answer.neighbours.flatMap { neighbour in
                item("  \(Self.padded(neighbour.tier, 6))\(Self.padded(neighbour.name, width + 2))", neighbour.note)
            }
        }
        return lines.joined(separator: "\n")
    }

    private func headline(_ answer: CaptureExplanation) -> String {
        let name = "\(answer.workload.name) on \(answer.node): "
        guard answer.isCaptured else { return paint("\(name)not captured", Self.red) }
        return paint("\(name)captured at level \(answer.level)", Self.bold)
    }

    private func facts(_ answer: CaptureExplanation) -> [String] {
        var facts: [(label: String, text: String)] = [
            ("identity", answer.workload.identity), ("addresses", answer.workload.addresses.joined(separator: ", ")),
        ]
        if let netns = answer.workload.netns { facts.append(("namespace", netns)) }
        if answer.isCaptured {
            if let reason = answer.levelReason { facts.append(("level", "no better one: \(reason)")) }
            facts += [("hooks", answer.place), ("takes", answer.scope), ("mTLS", answer.mtls)]
            facts.append(("same node", answer.sameNode))
        }
        var lines: [String] = []
        if let problem = answer.problem { lines += item("  problem     ", problem, Self.red) }
        for flow in answer.flows {
            for counter in flow.counters where counter.isTrouble && counter.count > 0 {
                lines += item("  trouble     ", "\(counter.count) \(counter.event), see \(flow.id)", Self.red)
            }
        }
        lines += facts.flatMap { item("  \(Self.padded($0.label, 12))", $0.text) }
        if !answer.listeners.isEmpty {
            let words = answer.listeners.map { "\($0.role) \($0.port)\($0.isPresent ? "" : " MISSING")" }
            let isWhole = answer.listeners.allSatisfy(\.isPresent)
            lines += item("  listeners   ", words.joined(separator: ", "), isWhole ? nil : Self.red)
        }
        return lines
    }

    private static func title(_ direction: CaptureExplanation.Direction) -> String {
        switch direction {
        case .outbound: "OUTBOUND: what the workload sends"
        case .inbound: "INBOUND: what is sent to it"
        case .inside: "INSIDE: what does not leave its network namespace, and the proxy itself"
        }
    }

    private func lines(_ flow: CaptureExplanation.Flow) -> [String] {
        let counters = flow.counters.filter { isFull || $0.count > 0 }
        let why = "not now: \(flow.note ?? "not at this level")"
        if !flow.isPossible && counters.isEmpty {
            return item("      ", "\(flow.title) [\(flow.id)]: \(why)", Self.dim)
        }
        var lines = item("  \(Self.padded(flow.tier ?? "-", 4))", "\(flow.title) [\(flow.id)]")
        if flow.isPossible {
            lines += item(Self.detail("way"), flow.path)
            if !flow.hooks.isEmpty { lines += item(Self.detail("hooks"), flow.hooks.joined(separator: " > ")) }
            if let note = flow.note { lines += item(Self.detail("note"), note) }
        } else {
            lines += item(Self.detail("way"), why)
        }
        if counters.isEmpty, !flow.counters.isEmpty { lines += item(Self.detail("count"), "none so far") }
        let width = counters.map { "\($0.count)".count }.max() ?? 0
        for (index, counter) in counters.enumerated() {
            let number = String(repeating: " ", count: width - "\(counter.count)".count) + "\(counter.count)"
            let isBad = counter.isTrouble && counter.count > 0
            let reason = counter.reason.map { " [\($0)]" } ?? ""
            lines += item(
                Self.detail(index == 0 ? "count" : "") + number + " ",
                "\(counter.event): \(counter.meaning)\(reason)", isBad ? Self.red : nil)
        }
        return lines
    }

    // MARK: Lines

    private static func detail(_ label: String) -> String { "      \(padded(label, 7))" }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(0, width - text.count))
    }

    /// A label and a text that is broken between words and goes on below its first word.
    private func item(_ label: String, _ text: String, _ code: Int? = nil) -> [String] {
        var lines: [String] = []
        var line = label
        var isFirst = true
        for word in text.split(separator: " ") {
            if !isFirst, line.count + 1 + word.count > Self.columns {
                lines.append(line)
                line = String(repeating: " ", count: label.count) + word
            } else {
                line += isFirst ? String(word) : " \(word)"
            }
            isFirst = false
        }
        lines.append(line)
        guard let code else { return lines }
        return lines.map { paint($0, code) }
    }

    private func paint(_ text: String, _ code: Int) -> String { color ? "\u{1b}[\(code)m\(text)\u{1b}[0m" : text }
}
