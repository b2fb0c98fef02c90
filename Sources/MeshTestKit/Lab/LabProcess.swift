import Foundation
import Synchronization

/// How a process ended.
public enum ExitStatus: Sendable, Hashable, CustomStringConvertible {
    case exited(Int32)
    case signalled(Int32)

    public var isSuccess: Bool { self == .exited(0) }

    public var description: String {
        switch self {
        case .exited(let code): "exit status \(code)"
        case .signalled(let number): "killed by signal \(number)"
        }
    }

    init(waitStatus: Int32) {
        let signal = waitStatus & 0x7f
        self = signal == 0 ? .exited(waitStatus >> 8 & 0xff) : .signalled(signal)
    }
}

/// A process of a lab that runs in the background, its output in a file.
public final class LabProcess: Sendable {
    /// The name it was given, for messages.
    public let name: String
    public let pid: Int32
    /// Standard output and standard error together, appended.
    public let log: LogFile

    private let ended = Mutex<ExitStatus?>(nil)

    init(name: String, pid: Int32, log: LogFile) {
        self.name = name
        self.pid = pid
        self.log = log
    }

    /// How it ended; nil while it runs. Asking reaps it.
    public var status: ExitStatus? {
        ended.withLock { ended in
            if ended == nil {
                var raw: Int32 = 0
                if waitpid(pid, &raw, WNOHANG) == pid { ended = ExitStatus(waitStatus: raw) }
            }
            return ended
        }
    }

    public var isRunning: Bool { status == nil }

    /// The user id it runs as, real; nil when it has ended.
    public var user: UInt32? {
        let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("Uid:") }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { UInt32($0) }
    }

    /// Sends a signal; nothing happens when it has ended, so a pid used again by the system is never hit.
    public func send(_ signal: Int32) {
        guard isRunning else { return }
        ended.withLock { if $0 == nil { _ = kill(pid, signal) } }
    }

    /// Waits for its end.
    public func exit(within limit: Duration = .seconds(10)) async throws -> ExitStatus {
        try await eventually("the end of \(name)", within: limit) { status }
    }

    /// SIGKILL, and waits until it is gone.
    public func killHard() async throws {
        send(SIGKILL)
        _ = try await exit()
    }

    /// SIGTERM, and SIGKILL for what is still there after `limit`.
    public func stop(within limit: Duration = .seconds(10)) async throws {
        send(SIGTERM)
        do { _ = try await exit(within: limit) } catch { try await killHard() }
    }
}

/// What a finished command left.
public struct CommandResult: Sendable {
    public let status: ExitStatus
    public let output: String
    public let errors: String
    public let duration: Duration
    /// Whether it had to be killed at its time limit.
    public let timedOut: Bool

    public var isSuccess: Bool { status.isSuccess && !timedOut }
    /// Output without the line breaks around it.
    public var text: String { output.trimmingCharacters(in: .whitespacesAndNewlines) }
}
