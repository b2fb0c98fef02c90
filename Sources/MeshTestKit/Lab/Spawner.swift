import Foundation
import Synchronization

/// The one thread that starts processes. The parent-death signal of Linux fires when the *thread* that made the child
/// ends, and threads of the concurrency pool come and go; this one stays as long as the process.
final class Spawner: Sendable {
    static let shared = Spawner()

    private let jobs = Mutex<[@Sendable () -> Void]>([])
    private let waiting = DispatchSemaphore(value: 0)

    private init() {
        let thread = Thread { [self] in
            while true {
                waiting.wait()
                let job = jobs.withLock { $0.removeFirst() }
                job()
            }
        }
        thread.name = "lab-spawner"
        thread.start()
    }

    /// What a child is started with; the arrays are complete, nothing is inherited but the working folder.
    struct Request: Sendable {
        let path: String
        let arguments: [String]
        let environment: [String]
        let input: String
        let output: String
        /// nil: the same file as `output`.
        let errors: String?
    }

    /// Starts a process and returns its pid. Blocks for the time of one posix_spawn.
    func start(_ request: Request) throws(LabError) -> Int32 {
        let result = Mutex<(Int32, Int32)>((0, 0))
        let done = DispatchSemaphore(value: 0)
        jobs.withLock { jobs in
            jobs.append {
                let answer = Self.spawn(request)
                result.withLock { $0 = answer }
                done.signal()
            }
        }
        waiting.signal()
        done.wait()
        let (code, pid) = result.withLock { $0 }
        guard code == 0 else {
            throw LabError(.command, "cannot start \(request.path): \(String(cString: strerror(code)))")
        }
        return pid
    }

    private static func spawn(_ request: Request) -> (code: Int32, pid: Int32) {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        let writing = O_WRONLY | O_CREAT | O_APPEND
        posix_spawn_file_actions_addopen(&actions, 0, request.input, O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, request.output, writing, 0o644)
        if let errors = request.errors {
            posix_spawn_file_actions_addopen(&actions, 2, errors, writing, 0o644)
        } else {
            posix_spawn_file_actions_adddup2(&actions, 1, 2)
        }

        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // A group of its own: Ctrl-C at the terminal reaches us alone, and we decide the order of the end. Signals that
        // we ignore or block are the child's to hear again.
        var all = sigset_t()
        var none = sigset_t()
        sigfillset(&all)
        sigemptyset(&none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setpgroup(&attributes, 0)
        let flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK
        posix_spawnattr_setflags(&attributes, Int16(flags))

        let arguments = request.arguments.map { strdup($0) } + [nil]
        let environment = request.environment.map { strdup($0) } + [nil]
        defer { (arguments + environment).forEach { free($0) } }
        var pid: Int32 = 0
        let code = posix_spawn(&pid, request.path, &actions, &attributes, arguments, environment)
        return (code, pid)
    }
}
