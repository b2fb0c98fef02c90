import Foundation
import Glibc
import Synchronization
import Testing

/// Held while pipes are made and marked close-on-exec: a child started in between would keep them open.
private let spawning = Mutex(())

/// What a program left behind.
struct Outcome: Sendable {
    let status: Int32
    let output: String
    let errors: String
}

struct ShellFailure: Error, CustomStringConvertible {
    let description: String
}

/// A program started with its output in pipes. Plain posix_spawn: descriptors of the tests must not leak into it, and
/// its end is learnt by waitpid alone.
struct Spawned {
    let identifier: pid_t
    let output: Int32
    let errors: Int32

    init(_ arguments: [String]) throws {
        self = try spawning.withLock { _ in try Spawned(locked: arguments) }
    }

    private init(locked arguments: [String]) throws {
        var out: [Int32] = [-1, -1]
        var complaint: [Int32] = [-1, -1]
        guard pipe(&out) == 0, pipe(&complaint) == 0 else { throw ShellFailure(description: "no pipe") }
        for descriptor in out + complaint { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, out[1], 1)
        posix_spawn_file_actions_adddup2(&actions, complaint[1], 2)
        var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for word in words { free(word) } }
        var identifier: pid_t = 0
        let code = posix_spawnp(&identifier, words[0]!, &actions, nil, &words, environ)
        posix_spawn_file_actions_destroy(&actions)
        close(out[1])
        close(complaint[1])
        guard code == 0 else {
            close(out[0])
            close(complaint[0])
            throw ShellFailure(description: "\(arguments[0]): \(String(cString: strerror(code)))")
        }
        self.identifier = identifier
        output = out[0]
        errors = complaint[0]
    }

    static func readAll(_ descriptor: Int32) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while case let count = read(descriptor, &chunk, chunk.count), count > 0 { bytes += chunk.prefix(count) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Waits for the end and closes the pipes.
    func finish() -> Int32 {
        var status: Int32 = 0
        while waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
        close(output)
        close(errors)
        return status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f)
    }
}

/// Runs a program to its end. It may complain in a few words only: the pipes are read one after the other.
func run(_ arguments: [String]) throws -> Outcome {
    let spawned = try Spawned(arguments)
    let output = Spawned.readAll(spawned.output)
    let errors = Spawned.readAll(spawned.errors)
    return Outcome(status: spawned.finish(), output: output, errors: errors)
}

/// Runs a line of words and fails when it fails.
@discardableResult
func shell(_ line: String) throws -> String {
    let outcome = try run(line.split(separator: " ").map(String.init))
    guard outcome.status == 0 else {
        throw ShellFailure(description: "\(line): status \(outcome.status): \(outcome.errors)")
    }
    return outcome.output
}

/// A program that runs until it is stopped.
final class Background {
    private let spawned: Spawned

    init(_ arguments: [String]) throws {
        spawned = try Spawned(arguments)
        // The program says when it is ready: nothing here waits for time to pass.
        var word = [UInt8](repeating: 0, count: 5)
        guard read(spawned.output, &word, 5) == 5, word == Array("ready".utf8) else {
            let complaint = Spawned.readAll(spawned.errors)
            stop()
            throw ShellFailure(
                description: "\(arguments.joined(separator: " ").prefix(80)) did not start: \(complaint)")
        }
    }

    var identifier: pid_t { spawned.identifier }

    /// A child that has ended stays until it is waited for; its state says so.
    var hasEnded: Bool {
        let state = try? String(contentsOfFile: "/proc/\(spawned.identifier)/stat", encoding: .utf8)
        return state?.contains(") Z ") ?? true
    }

    /// What it printed until it ended by itself, after the word that it is ready. That it failed is the test's failure.
    func rest(sourceLocation: SourceLocation = #_sourceLocation) -> String {
        let text = Spawned.readAll(spawned.output)
        let complaint = Spawned.readAll(spawned.errors)
        let status = spawned.finish()
        if status != 0 { Issue.record("status \(status): \(complaint)", sourceLocation: sourceLocation) }
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Asks it to end and waits until it has.
    /// - Returns: what it printed after "ready".
    func end() -> String {
        kill(spawned.identifier, SIGTERM)
        let output = Spawned.readAll(spawned.output)
        _ = spawned.finish()
        return output
    }

    func stop() {
        kill(spawned.identifier, SIGKILL)
        _ = spawned.finish()
    }
}
