internal import CMeshSystem
internal import Glibc
internal import Synchronization

/// The `nft` program (nftables), run in the calling thread's network namespace: a child is born into the namespace of
/// the thread that starts it.
enum NftProgram {
    /// How long a call may take: many times what thousands of rules need. Capture stands still meanwhile.
    static let limit = Duration.seconds(10)
    /// How long a killed one may take to end.
    private static let killLimit = Duration.seconds(1)
    /// Killed, and held in the kernel all the same.
    private static let stuck = Mutex<[pid_t]>([])

    /// Looked for in PATH and where Debian, Fedora and Alpine put it: a daemon's PATH may have no sbin.
    static func path() throws(KernelError) -> String {
        let search = getenv("PATH").map { value in String(cString: value) } ?? ""
        let folders = search.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin", "/usr/local/sbin"]
        for path in folders.map({ folder in folder + "/nft" }) where access(path, X_OK) == 0 { return path }
        throw KernelError(
            .nftUnavailable, "looking for the nft program", at: "PATH", cause: "there is none",
            remedy: "install it (apt-get install nftables); capture levels L2 and L3 need it")
    }

    /// Applies a script as one transaction: all of it or nothing.
    static func apply(_ script: String, what: String, place: String) throws(KernelError) {
        let outcome = try run(["-f", "-"], input: script, place: place)
        guard outcome.status == 0 else { throw refusal(outcome, what, place) }
    }

    /// Whether our table stands in this namespace.
    static func tableExists(place: String) throws(KernelError) -> Bool {
        let outcome = try run(["list", "tables", "inet"], input: "", place: place)
        guard outcome.status == 0 else { throw refusal(outcome, "listing the tables", place) }
        return outcome.output.split(separator: "\n").contains("table inet \(NftRules.table)")
    }

    /// The packets of our table's counters, by name; empty when there is no table.
    static func counters(place: String) throws(KernelError) -> [String: UInt64] {
        let outcome = try run(["list", "counters", "table", "inet", NftRules.table], input: "", place: place)
        guard outcome.status == 0 else { return [:] }
        // counter NAME { packets N bytes N }
        let words = outcome.output.split(whereSeparator: \.isWhitespace)
        var found: [String: UInt64] = [:]
        for (index, word) in words.enumerated() where word == "counter" && index + 4 < words.count {
            if words[index + 3] == "packets" { found[String(words[index + 1])] = UInt64(words[index + 4]) }
        }
        return found
    }

    struct Outcome {
        /// Exit status; negative: the signal that ended it.
        let status: Int32
        let output: String
        let errors: String
    }

    /// Files in memory stand in for pipes: however much is said, neither side waits for the other.
    static func run(
        _ arguments: [String], input: String, place: String, limit: Duration = limit
    ) throws(KernelError) -> Outcome {
        let program = try path()
        try refuseIfStuck(place)
        let files = (try memoryFile(place), try memoryFile(place), try memoryFile(place))
        let bytes = Array(input.utf8)
        guard pwrite(files.0.raw, bytes, bytes.count, 0) == bytes.count else {
            throw KernelError(.system, "handing rules to nft", at: place, code: errno, remedy: "free some memory")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // A group of its own, so that what it may have started can be killed with it.
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        for (target, file) in [files.0, files.1, files.2].enumerated() {
            posix_spawn_file_actions_adddup2(&actions, file.raw, Int32(target))
        }
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [strdup("LC_ALL=C"), nil]
        defer { for word in words + environment { free(word) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, program, &actions, &attributes, &words, &environment)
        guard code == 0 else {
            throw KernelError(
                .nftUnavailable, "starting nft", at: program, code: code, remedy: "check that it is a program")
        }
        guard let status = try end(of: child, within: limit) else {
            kill(-child, SIGKILL)
            if try end(of: child, within: killLimit) == nil { stuck.withLock { $0.append(child) } }
            throw KernelError(
                .system, "running \(program) \(arguments.joined(separator: " "))", at: place,
                cause: "it did not end within \(limit) and was killed",
                remedy: "run 'nft list ruleset' in that namespace to see whether it hangs there, and why")
        }
        return Outcome(
            status: status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f), output: text(files.1),
            errors: text(files.2))
    }

    /// The status of a child that has ended; nil when it has not within `limit`. By looking again and again: a process
    /// descriptor needs Linux 5.3, later than these levels, and what a signal would say belongs to the whole daemon.
    private static func end(of child: pid_t, within limit: Duration) throws(KernelError) -> Int32? {
        let deadline = ContinuousClock.now.advanced(by: limit)
        var pause: UInt32 = 200
        while true {
            var status: Int32 = 0
            switch waitpid(child, &status, WNOHANG) {
            case child: return status
            case 0:
                guard ContinuousClock.now < deadline else { return nil }
                usleep(pause)
                pause = min(pause * 2, 20_000)
            default:
                guard errno == EINTR else {
                    throw KernelError(
                        .system, "waiting for nft", at: "process \(child)", code: errno, remedy: "try again")
                }
            }
        }
    }

    /// One that cannot even be killed is enough: every further one would join it.
    private static func refuseIfStuck(_ place: String) throws(KernelError) {
        let held = stuck.withLock { stuck in
            stuck.removeAll { waitpid($0, nil, WNOHANG) != 0 }
            return stuck.first
        }
        guard let held else { return }
        throw KernelError(
            .system, "running nft", at: place, cause: "process \(held), an nft that was killed, is held in the kernel",
            remedy: "see /proc/\(held)/stack; if it does not end, restart the machine")
    }

    private static func memoryFile(_ place: String) throws(KernelError) -> Descriptor {
        let raw = mesh_memory_file()
        guard raw >= 0 else {
            throw KernelError(
                .system, "making a file in memory", at: place, code: raw,
                remedy: "raise the limit of open files (ulimit -n)")
        }
        return Descriptor(adopting: raw)
    }

    private static func text(_ file: Descriptor) -> String {
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = pread(file.raw, &bytes, bytes.count, 0)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }

    private static func refusal(_ outcome: Outcome, _ what: String, _ place: String) -> KernelError {
        let said = outcome.errors.split(separator: "\n").first.map(String.init) ?? "nft ended with \(outcome.status)"
        let denied = said.contains("Operation not permitted")
        return KernelError(
            .namespaceRefused, what, at: place, cause: said,
            remedy: denied
                ? "run as root with CAP_NET_ADMIN"
                : "this needs nf_tables with nat in the inet family (Linux 5.2: modules nf_tables, nft_chain_nat, "
                    + "nft_fib_inet, nft_reject_inet, nft_ct)")
    }
}
