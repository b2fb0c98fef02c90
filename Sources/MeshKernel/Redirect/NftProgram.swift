internal import CMeshSystem
internal import Glibc

/// The `nft` program (nftables), run in the calling thread's network namespace: a child is born into the namespace of
/// the thread that starts it.
enum NftProgram {
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
    static func run(_ arguments: [String], input: String, place: String) throws(KernelError) -> Outcome {
        let program = try path()
        let files = (try memoryFile(place), try memoryFile(place), try memoryFile(place))
        let bytes = Array(input.utf8)
        guard pwrite(files.0.raw, bytes, bytes.count, 0) == bytes.count else {
            throw KernelError(.system, "handing rules to nft", at: place, code: errno, remedy: "free some memory")
        }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (target, file) in [files.0, files.1, files.2].enumerated() {
            posix_spawn_file_actions_adddup2(&actions, file.raw, Int32(target))
        }
        var words: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
        var environment: [UnsafeMutablePointer<CChar>?] = [strdup("LC_ALL=C"), nil]
        defer { for word in words + environment { free(word) } }
        var child: pid_t = 0
        let code = posix_spawn(&child, program, &actions, nil, &words, &environment)
        guard code == 0 else {
            throw KernelError(
                .nftUnavailable, "starting nft", at: program, code: code, remedy: "check that it is a program")
        }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0 {
            guard errno == EINTR else {
                throw KernelError(.system, "waiting for nft", at: program, code: errno, remedy: "try again")
            }
        }
        return Outcome(
            status: status & 0x7f == 0 ? status >> 8 & 0xff : -(status & 0x7f), output: text(files.1),
            errors: text(files.2))
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
