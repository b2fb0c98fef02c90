import Foundation
import MeshTestKit
import Synchronization

extension MeshLab {
    /// The path of one of the scripts in Tools.
    static func tool(_ name: String) -> String {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Tools/\(name)").path
    }

    /// The last line a tool printed.
    struct Verdict: Sendable, CustomStringConvertible {
        let description: String

        init(_ line: String) { description = line }

        private var object: [String: Any] {
            (try? JSONSerialization.jsonObject(with: Data(description.utf8))) as? [String: Any] ?? [:]
        }
        var ok: Bool { object["ok"] as? Bool ?? false }
        func text(_ name: String) -> String { object[name] as? String ?? "" }
        func number(_ name: String) -> Int { object[name] as? Int ?? -1 }

        /// What a probe came to.
        var outcome: String { text("outcome") }
    }

    private func launch(
        _ arguments: [String], in host: LabHost, input: String = "/dev/null", script: String = "traffic.py"
    ) -> Launch {
        Launch(
            python, [Self.tool(script)] + arguments, in: host, environment: ["PYTHONDONTWRITEBYTECODE": "1"],
            input: input)
    }

    /// Runs one of the clients of traffic.py to its end.
    func traffic(
        _ arguments: String..., from host: LabHost, within limit: Duration = patience
    ) async throws -> Verdict {
        let result = try await lab.run(launch(arguments, in: host), within: limit)
        guard result.isSuccess, let line = result.output.split(separator: "\n").last else {
            let why = result.timedOut ? "not done within \(limit)" : "\(result.status)"
            throw LabError(.command, "traffic \(arguments): \(why): \(result.errors)\(result.output)")
        }
        return Verdict(String(line))
    }

    /// One connection; a hang shows as `timeout`.
    func probe(_ address: String, port: Int = MeshLab.port, from host: LabHost) async throws -> Verdict {
        try await traffic("probe", address, "\(port)", "30", from: host)
    }

    /// A client in the background that goes on when it is told to.
    struct Waiting {
        let process: LabProcess
        private let input: FileHandle

        fileprivate init(_ process: LabProcess, _ input: FileHandle) {
            self.process = process
            self.input = input
        }

        func release() throws { try tell("") }

        func tell(_ word: String) throws { try input.write(contentsOf: Data("\(word)\n".utf8)) }

        func line(_ words: String...) async throws -> Verdict {
            try await eventually("\(words) of \(process.name)", within: .seconds(120)) {
                if let line = process.log.line(containing: words) { return Verdict(line) }
                guard process.isRunning else { throw LabError(.command, "it ended: \(process.log.tail())") }
                return nil
            }
        }
    }

    func background(
        _ arguments: String..., from host: LabHost, script: String = "traffic.py"
    ) throws -> Waiting {
        let name = "\(arguments[0])-\(UInt32.random(in: 0 ... .max))"
        let pipe = "\(lab.folder)/\(name).in"
        guard mkfifo(pipe, 0o600) == 0 else {
            throw LabError(.setUp, "cannot make \(pipe): \(String(cString: strerror(errno)))")
        }
        // Open for both, so that neither side waits for the other.
        guard let input = FileHandle(forUpdatingAtPath: pipe) else { throw LabError(.setUp, "cannot open \(pipe)") }
        return Waiting(try lab.spawn(launch(arguments, in: host, input: pipe, script: script), name: name), input)
    }

    @discardableResult
    func serve(_ kind: String = "serve", port: Int = MeshLab.port, in host: LabHost) async throws -> LabProcess {
        let server = try lab.spawn(launch([kind, "\(port)"], in: host), name: "\(host.name)-\(kind)")
        try await lab.waitUntilUp(server, within: Self.patience) {
            server.log.line(containing: ["listening", "\(port)"]) != nil
        }
        return server
    }
}
