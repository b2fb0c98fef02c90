import Foundation
import Testing

/// One boot of a Debian kernel that ran one of the scripts of `Tools`, and what its parts printed.
struct GuestRun {
    struct Part {
        let status: Int
        let output: String
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let parts: [String: Part]
    private let script: String

    static let tools = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Tools")
    /// The program that runs this test; in the guest it runs the tests of other bundles.
    static let testProgram = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
    static let culvert = testProgram.deletingLastPathComponent().appendingPathComponent("culvert")

    /// Boots, runs the script to its end and powers off.
    /// - Parameters:
    ///   - kernel: the series, as Tools/kernel-image knows it.
    ///   - kernelWords: added to the kernel's command line.
    ///   - limit: seconds; a guest that is not done by then is killed and its console is in the error.
    init(_ script: String, kernel: String = "6.1", kernelWords: [String] = [], limit: Int) async throws {
        guard geteuid() == 0 else { throw Failure(description: "these tests need root: run Deploy/test as root") }
        for program in [Self.testProgram, Self.culvert]
        where !FileManager.default.isExecutableFile(atPath: program.path) {
            throw Failure(description: "no \(program.path): swift build --build-tests")
        }
        let guest = try await command(
            [Self.tools.appendingPathComponent("run-in-kernel").path, "--kernel", kernel, "--timeout", "\(limit)"]
                + kernelWords.flatMap { ["--append", $0] }
                + ["bash", Self.tools.appendingPathComponent(script).path, Self.culvert.path, Self.testProgram.path])
        guard guest.status == 0 else {
            throw Failure(
                description: "\(script): status \(guest.status)\n\(guest.output.suffix(8000))\n\(guest.errors)")
        }
        parts = Self.parse(guest.output)
        self.script = script
    }

    /// What `part NAME` of the script did. A name that did not run fails the test.
    func part(_ name: String) throws -> Part {
        try #require(parts[name], "\(script): no part '\(name)', or it did not end; there are \(parts.keys.sorted())")
    }

    /// The report of a `culvert preflight --output json`.
    func report(_ name: String) throws -> Report {
        let part = try part(name)
        do {
            return Report(try JSONDecoder().decode(Report.Body.self, from: Data(part.output.utf8)), status: part.status)
        } catch {
            throw Failure(description: "\(name): \(error): \(part.output)")
        }
    }

    /// Frames as Tools/parts.bash prints them; a part without its end is left out.
    static func parse(_ transcript: String) -> [String: Part] {
        var parts: [String: Part] = [:]
        var open: (name: String, lines: [Substring])?
        for line in transcript.split(separator: "\n", omittingEmptySubsequences: true) {
            let words = line.split(separator: " ")
            switch words.first {
            case "##begin" where words.count == 2: open = (String(words[1]), [])
            case "##end" where words.count == 3:
                if let part = open, part.name == words[1], let status = Int(words[2]) {
                    parts[part.name] = Part(status: status, output: part.lines.joined(separator: "\n"))
                }
                open = nil
            default: open?.lines.append(line)
            }
        }
        return parts
    }
}

/// What a program printed, and its exit status (that of a signal, negated).
struct CommandResult {
    let status: Int32
    let output: String
    let errors: String
}

/// Threads of Swift's pool block all signals, and a program would inherit that: SIGTERM could not end it.
private func start(_ process: Process) throws {
    var none = sigset_t()
    var before = sigset_t()
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    try process.run()
}

/// Runs a program to its end.
func command(_ words: [String]) async throws -> CommandResult {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: words[0])
    process.arguments = Array(words.dropFirst())
    process.standardInput = FileHandle.nullDevice
    let (output, errors) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = errors
    try start(process)
    let complaint = Task.detached { try errors.fileHandleForReading.readToEnd() ?? Data() }
    let text = try await Task.detached { try output.fileHandleForReading.readToEnd() ?? Data() }.value
    let errorText = try await complaint.value
    process.waitUntilExit()
    return CommandResult(
        status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
        output: String(decoding: text, as: UTF8.self), errors: String(decoding: errorText, as: UTF8.self))
}

/// What scripts may rely on of preflight's JSON: the level, the verdicts, and checks by their stable word.
struct Report {
    struct Check: Decodable {
        let id: String
        let status: String
        let detail: String
        let remedy: String
    }

    struct Fitness: Decodable {
        let use: String
        let verdict: String
    }

    struct Body: Decodable {
        let level: String?
        let verdict: String
        let checks: [Check]
        let uses: [Fitness]
    }

    let level: String?
    let verdict: String
    /// The command's exit status.
    let status: Int
    private let checks: [String: Check]
    private let uses: [String: String]

    init(_ body: Body, status: Int) {
        level = body.level
        verdict = body.verdict
        checks = Dictionary(body.checks.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        uses = Dictionary(body.uses.map { ($0.use, $0.verdict) }, uniquingKeysWith: { first, _ in first })
        self.status = status
    }

    /// The verdict on a level or tier.
    func use(_ name: String) throws -> String {
        try #require(uses[name], "preflight says nothing of '\(name)'; there are \(uses.keys.sorted())")
    }

    func check(_ id: String) throws -> Check {
        try #require(checks[id], "preflight has no check '\(id)'; there are \(checks.keys.sorted())")
    }

    /// The words of the checks that are not `ok`.
    func ids(_ status: String) -> [String] { checks.values.filter { $0.status == status }.map(\.id).sorted() }
}
