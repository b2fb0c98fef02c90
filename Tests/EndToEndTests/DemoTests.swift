import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// The demo as a user runs it: every step passes, and nothing stays behind.
    @Suite("Demo")
    struct DemoTests {
        private struct Report: Decodable {
            struct Step: Decodable {
                let id: String
                let passed: Bool
                let evidence: [String]
            }

            let passed: Bool
            let steps: [Step]
        }

        /// What README and the issue promise, in the order it is shown.
        private static let steps = [
            "page", "redis", "iperf3", "same-node", "wire", "identities", "refusal", "policy-change", "split",
            "waypoint-down", "kill-client-proxy", "kill-server-proxy",
        ]

        @Test("every step passes, as JSON tells it, and nothing is left")
        func everyStep() async throws {
            try #require(geteuid() == 0, "the demo makes network namespaces: run the tests as root")
            let demo = Process()
            demo.executableURL = URL(fileURLWithPath: try Daemons.path("culvert"))
            demo.arguments = ["demo", "--output", "json"]
            let output = Pipe()
            demo.standardOutput = output
            try demo.run()
            let text = try await Task.detached { try output.fileHandleForReading.readToEnd() ?? Data() }.value
            demo.waitUntilExit()
            let report = try JSONDecoder().decode(Report.self, from: text)
            for step in report.steps where !step.passed {
                Issue.record("\(step.id): \(step.evidence.joined(separator: "; "))")
            }
            #expect(report.passed && demo.terminationStatus == 0)
            #expect(report.steps.map(\.id) == Self.steps)
            // A lab's names begin with its owner's process.
            let token = "cv\(demo.processIdentifier)-"
            for folder in ["/run/netns", "/run/culvert-lab"] {
                let left = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
                #expect(!left.contains { $0.hasPrefix(token) }, "left in \(folder): \(left)")
            }
            let mounts = try String(contentsOfFile: "/proc/mounts", encoding: .utf8)
            #expect(!mounts.contains("/\(token)"))
        }
    }
}
