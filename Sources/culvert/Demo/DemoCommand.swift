import ArgumentParser
import Foundation
import MeshTestKit

/// Builds two nodes and their workloads on this machine and proves, step by step, what the mesh promises.
struct DemoCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Run the whole mesh on this machine: two nodes, real servers and clients, every claim checked.",
        discussion: """
            Makes two nodes and their workloads out of network namespaces, sends real traffic through them (nginx, redis,
            iperf3, curl), shows ciphertext on the wire, an identity-based refusal, a waypoint route and what happens
            when a proxy is killed, and removes everything. Needs root. Nothing outside its own namespaces and its own
            cgroup is touched.

            Steps: \(DemoStep.all.map(\.id).joined(separator: ", "))

            Examples:
              culvert demo                         all steps
              culvert demo --only wire split       two of them
              culvert demo --output json           for machines
              culvert demo --keep                  leave it running and say how to look around
              culvert demo --cleanup               remove what --keep left

            Exit codes: 0 every step passed, 1 a step failed, 2 bad usage, 3 the demo could not be set up.
            """)

    @Option(help: "text or json.")
    var output: OutputFormat = .text

    @Flag(help: "Leave the demo running at the end and print how to explore it.")
    var keep = false

    @Flag(help: "Remove demos that were left running, and do nothing else.")
    var cleanup = false

    @Option(parsing: .upToNextOption, help: ArgumentHelp("Run only these steps.", valueName: "step"))
    var only: [String] = []

    func validate() throws {
        let known = DemoStep.all.map(\.id)
        let unknown = only.filter { !known.contains($0) }
        if !unknown.isEmpty {
            throw ValidationError(
                "no step '\(unknown.joined(separator: "', '"))'; there are: \(known.joined(separator: ", "))")
        }
        if cleanup, keep || !only.isEmpty { throw ValidationError("--cleanup stands alone") }
    }

    func run() async throws {
        let report = DemoReport(format: output)
        if cleanup {
            try cleanUp()
            return
        }
        Lab.tearDownOnSignals()
        Lab.sweep()
        let mesh: DemoMesh
        do {
            mesh = try await DemoMesh.make(lifetime: keep ? .kept : .owner) { report.progress($0) }
        } catch {
            report.setUpFailed("\(error)")
            throw ExitCode(3)
        }
        let steps = DemoStep.all.filter { only.isEmpty || only.contains($0.id) }
        report.begin(mesh, steps: steps.count)
        for step in steps {
            report.starts(step)
            let result = await step.run(on: mesh)
            // Somebody pressed Ctrl-C: the lab is going, and what failed now says nothing.
            if mesh.lab.isTornDown { break }
            report.ended(step, result)
        }
        if keep {
            report.explain(mesh)
        } else {
            await mesh.lab.tearDown()
        }
        report.end()
        if !report.passed { throw ExitCode(1) }
    }

    private func cleanUp() throws {
        guard geteuid() == 0 else {
            FileHandle.standardError.write(Data("culvert demo --cleanup needs root\n".utf8))
            throw ExitCode(3)
        }
        let removed = Lab.sweep(includingKept: true)
        switch output {
        case .text: print(removed.isEmpty ? "nothing to remove" : "removed \(removed.joined(separator: ", "))")
        case .json:
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys]
            print(String(decoding: try encoder.encode(["removed": removed]), as: UTF8.self))
        }
    }
}
