public import Logging
import Synchronization

/// The level of every log scope, changeable while running (`/logging` of the admin port).
public final class LogLevels: Sendable {
    /// Nothing at all is written: swift-log has no such level.
    private enum Level: Sendable {
        case level(Logger.Level)
        case off
    }

    private struct State: Sendable {
        var general: Level
        var scopes: [String: Level] = [:]
    }

    private let initial: Logger.Level
    private let state: Mutex<State>

    public init(_ initial: Logger.Level = .info) {
        self.initial = initial
        state = Mutex(State(general: .level(initial)))
    }

    /// Why a level was refused, in words for the one who asked.
    public struct Refusal: Error, Hashable, CustomStringConvertible {
        public let description: String
    }

    /// As `apply` reads it: `info,tls=debug`.
    public var description: String {
        state.withLock { state in
            let scopes = state.scopes.sorted { $0.key < $1.key }
            return ([LogLevels.word(state.general)] + scopes.map { "\($0.key)=\(LogLevels.word($0.value))" })
                .joined(separator: ",")
        }
    }

    /// Reads a list of `LEVEL`, `SCOPE=LEVEL` or `SCOPE:LEVEL`: all of it or, with an error, nothing of it.
    public func apply(_ text: String) throws(Refusal) {
        var general: Level?
        var scopes: [String: Level] = [:]
        for piece in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = piece.split(maxSplits: 1, omittingEmptySubsequences: false) { $0 == "=" || $0 == ":" }
            guard let level = LogLevels.read(parts[parts.count - 1]), parts.count == 1 || !parts[0].isEmpty else {
                throw Refusal(
                    description: "\"\(piece)\" is not a log level: use error, warn, info, debug, trace or off, "
                        + "alone or as scope=level")
            }
            if parts.count == 1 { general = level } else { scopes[String(parts[0])] = level }
        }
        state.withLock { state in
            if let general { state.general = general }
            state.scopes.merge(scopes) { _, new in new }
        }
    }

    /// `apply`, or `reset` for nil; gives the refusal's words, or nil.
    public func set(_ text: String?) -> String? {
        guard let text else {
            reset()
            return nil
        }
        do throws(Refusal) {
            try apply(text)
            return nil
        } catch {
            return error.description
        }
    }

    /// Back to what the process started with.
    public func reset() {
        state.withLock { $0 = State(general: .level(initial)) }
    }

    /// The level of a scope; nil is off.
    func level(of scope: String) -> Logger.Level? {
        state.withLock { state in
            switch state.scopes[scope] ?? state.general {
            case .level(let level): level
            case .off: nil
            }
        }
    }

    private static func read(_ word: Substring) -> Level? {
        switch word.lowercased() {
        case "off": .off
        case "error", "critical": .level(.error)
        case "warn", "warning": .level(.warning)
        case "info": .level(.info)
        case "debug": .level(.debug)
        case "trace": .level(.trace)
        default: nil
        }
    }

    private static func word(_ level: Level) -> String {
        switch level {
        case .off: "off"
        case .level(let level): level.word
        }
    }
}

extension Logger.Level {
    /// The word of the log line and of `/logging`.
    var word: String {
        switch self {
        case .trace: "trace"
        case .debug: "debug"
        case .info, .notice: "info"
        case .warning: "warn"
        case .error, .critical: "error"
        }
    }
}
