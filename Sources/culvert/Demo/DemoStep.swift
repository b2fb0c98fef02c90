import MeshTestKit

/// What a step found. Every expectation is evidence, whether it held or not.
struct Evidence {
    struct Line {
        /// nil: a remark, neither for nor against.
        let holds: Bool?
        let text: String
    }

    private(set) var lines: [Line] = []

    var passed: Bool { !lines.contains { $0.holds == false } && lines.contains { $0.holds == true } }

    mutating func expect(_ holds: Bool, _ text: String) {
        lines.append(Line(holds: holds, text: text))
    }

    mutating func remark(_ text: String) {
        lines.append(Line(holds: nil, text: text))
    }
}

/// One claim and its check.
struct DemoStep: Sendable {
    /// What `--only` takes.
    let id: String
    let title: String
    /// The claim.
    let proves: String
    let check: @Sendable (DemoMesh, inout Evidence) async throws -> Void

    struct Result {
        var evidence: Evidence
        let duration: Duration
    }

    func run(on mesh: DemoMesh) async -> Result {
        let clock = ContinuousClock()
        let begin = clock.now
        var evidence = Evidence()
        do {
            try await check(mesh, &evidence)
        } catch {
            evidence.expect(false, "\(error)")
        }
        return Result(evidence: evidence, duration: begin.duration(to: clock.now))
    }

    /// In the order they are run: those that need the whole wire's history first, those that break things last.
    static let all: [DemoStep] = trafficSteps + wireSteps + policySteps + waypointSteps + failureSteps
}

extension Duration {
    var milliseconds: Int { Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000) }
}
