import Foundation
import Synchronization

extension Lab {
    /// Starts a program in the background. It dies with the lab and, unless the lab is kept, with this process.
    /// - Parameter name: the name of its log, `<folder>/<name>.log`; a log of an earlier process is appended to.
    public func spawn(_ launch: Launch, name: String) throws -> LabProcess {
        let log = LogFile(path: "\(folder)/\(name).log")
        let pid = try start(launch, output: log.path, errors: nil)
        let process = LabProcess(name: name, pid: pid, log: log)
        let isLate = state.withLock { state in
            state.processes.append(process)
            return state.isTornDown
        }
        if isLate {
            process.send(SIGKILL)
            throw tornDown
        }
        return process
    }

    /// Runs a program to its end, or kills it at the time limit.
    public func run(_ launch: Launch, within limit: Duration = .seconds(30)) async throws -> CommandResult {
        let number = state.withLock { state in
            state.commands += 1
            return state.commands
        }
        let output = "\(folder)/commands/\(number).out"
        let errors = "\(folder)/commands/\(number).err"
        defer {
            unlink(output)
            unlink(errors)
        }
        let clock = ContinuousClock()
        let begin = clock.now
        let pid = try start(launch, output: output, errors: errors)
        let process = LabProcess(name: launch.program, pid: pid, log: LogFile(path: output))
        var timedOut = false
        let status: ExitStatus
        do {
            status = try await process.exit(within: limit)
        } catch {
            // A cancelled caller must not leave it behind either.
            process.send(SIGKILL)
            while process.isRunning { usleep(500) }
            guard let error = error as? LabError, error.kind == .timedOut else { throw error }
            timedOut = true
            status = .signalled(SIGKILL)
        }
        return CommandResult(
            status: status, output: Self.text(output), errors: Self.text(errors),
            duration: begin.duration(to: clock.now),
            timedOut: timedOut)
    }

    /// Runs a program that must succeed and returns what it printed.
    @discardableResult
    public func check(_ launch: Launch, within limit: Duration = .seconds(30)) async throws -> String {
        let result = try await run(launch, within: limit)
        guard result.isSuccess else {
            let command = ([launch.program] + launch.arguments).joined(separator: " ")
            let why = result.timedOut ? "not done within \(limit)" : "\(result.status)"
            throw LabError(.command, "\(command): \(why): \(result.errors.isEmpty ? result.text : result.errors)")
        }
        return result.text
    }

    private var tornDown: LabError { LabError(.tornDown, "the lab \(token) was torn down") }

    private func start(_ launch: Launch, output: String, errors: String?) throws -> Int32 {
        if isTornDown { throw tornDown }
        let group = launch.cgroup ?? launch.host?.cgroup
        if let group { try Cgroup(path: group).create() }
        let words = try launch.commandLine(diesWithUs: lifetime == .owner, cgroup: group)
        return try Spawner.shared.start(
            Spawner.Request(
                path: words[0], arguments: words, environment: launch.environmentList, input: launch.input,
                output: output, errors: errors))
    }

    private static func text(_ path: String) -> String {
        FileManager.default.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }
}
