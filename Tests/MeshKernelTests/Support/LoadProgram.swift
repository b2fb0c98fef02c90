import Foundation
import Glibc
import Testing

/// The program `culvert-load`, beside the test bundle.
enum LoadProgram {
    static func path() throws -> String {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? own
        let path = URL(fileURLWithPath: bundle).deletingLastPathComponent().path + "/culvert-load"
        guard FileManager.default.isExecutableFile(atPath: path) else {
            throw ShellFailure(description: "no \(path): build it with 'swift build --build-tests'")
        }
        return path
    }
}

/// What a client of it counted.
struct LoadReport: Decodable {
    let failed: Int
    let refused: Int
    let reset: Int
    let timedOut: Int
    let noPort: Int
    let cutShort: Int
    let corrupted: Int
    let other: Int
    var done: Int?
    var tried: Int?
    var roundTrips: Int?
    var bytes: Int?
    var opened: Int?
    var answered: Int?

    /// From the last line of what a client printed.
    init(_ output: String) throws {
        guard let line = output.split(separator: "\n").last else {
            throw ShellFailure(description: "culvert-load printed nothing")
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(LoadReport.self, from: Data(line.utf8))
    }
}

/// What the server saw until it was terminated.
struct LoadServerReport: Decodable {
    let accepted: Int
    let open: Int
    let bytes: Int
    let reset: Int
}

extension Lab {
    /// Runs a client of culvert-load to its end.
    /// - Returns: the exit status and the report.
    func load(in namespace: String, _ words: String...) throws -> (status: Int32, report: LoadReport) {
        let outcome = try run(inside(namespace) + [LoadProgram.path()] + words)
        guard outcome.status == 0 || outcome.status == 1 else {
            throw ShellFailure(description: "culvert-load \(words): status \(outcome.status): \(outcome.errors)")
        }
        return (outcome.status, try LoadReport(outcome.output))
    }

    /// Starts an echo server and a sink; the caller stops it.
    func loadServer(in namespace: String, echo: String, sink: String? = nil) throws -> Background {
        try Background(
            inside(namespace) + [LoadProgram.path(), "serve", "--echo", echo] + (sink.map { ["--sink", $0] } ?? []))
    }
}

/// Connections that stay open until they are asked for one more exchange.
struct HeldConnections {
    fileprivate let client: Background
    fileprivate let input: FileHandle

    /// One more exchange on every connection, and the end of them.
    func finish() throws -> LoadReport {
        try input.write(contentsOf: Data("\n".utf8))
        return try LoadReport(client.rest())
    }
}

extension Lab {
    /// Opens connections with `culvert-load hold`; they are open when this returns.
    func holder(in namespace: String, _ words: String...) throws -> HeldConnections {
        let path = "/tmp/\(id)fifo\(UInt32.random(in: 0 ... .max))"
        guard mkfifo(path, 0o600) == 0 else { throw ShellFailure(description: "no pipe at \(path)") }
        defer { unlink(path) }
        // Open for both, so that neither side waits for the other.
        guard let input = FileHandle(forUpdatingAtPath: path) else {
            throw ShellFailure(description: "cannot open \(path)")
        }
        let client = try Background(
            ["sh", "-c", "exec \"$@\" <\(path)", "sh"] + inside(namespace) + [LoadProgram.path(), "hold"] + words)
        return HeldConnections(client: client, input: input)
    }
}
