import ArgumentParser
import Foundation
import MeshModel

/// `culvert capture …`: how workloads' traffic comes to the node proxy.
struct CaptureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture", abstract: "Look at how workloads' traffic is captured.",
        subcommands: [CaptureExplainCommand.self])
}

/// `culvert capture explain NS/NAME`.
struct CaptureExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Show which hook catches each kind of a workload's traffic, and what was counted so far.",
        discussion: """
            Asks the admin port of the culvert-node that the workload belongs to. Counters are those of the kernel, from \
            the workload's capture on; ask twice to see what moves. Without --all, what this workload cannot have is one \
            line and counters at zero are left out.

            EXAMPLES:
              culvert capture explain default/shop
              culvert capture explain shop --all
              culvert capture explain shop --to 10.96.0.10:80
              culvert capture explain default/shop --output json |
                jq '.flows[].counters[] | select(.isTrouble and .count > 0)'

            EXIT STATUS:
              0 it is captured, 1 it is not (the answer says why) or is unknown, 2 bad usage, also a name that several
              have, 3 the daemon could not be asked
            """)

    @Argument(help: "NAMESPACE/NAME of the workload, or NAME where only one has it.")
    var workload: String

    @Option(
        help: ArgumentHelp(
            "Show how a TCP connection of the workload to this address would go, instead of all traffic.",
            valueName: "address:port"),
        transform: AdminOptions.address)
    var to: SocketAddress?

    @Flag(name: .shortAndLong, help: "Show every kind of traffic in full, with the counters at zero.")
    var all = false

    @OptionGroup var daemon: AdminOptions

    @Option(name: .shortAndLong, help: "Output format: text or json.")
    var output: OutputFormat = .text

    func validate() throws {
        if workload.isEmpty { throw ValidationError("name a workload: NAMESPACE/NAME") }
    }

    func run() throws {
        let answer: CaptureQuestion.Answer
        do throws(AdminClientFailure) {
            answer = try CaptureQuestion(workload: workload, to: to).ask(daemon.client)
        } catch {
            throw daemon.unreachable(error, command: "capture explain")
        }
        switch answer {
        case .explained(let explanation):
            switch output {
            case .text: print(CaptureText(color: isatty(STDOUT_FILENO) == 1, isFull: all).render(explanation))
            case .json: print(try Self.json(explanation))
            }
            if !explanation.isCaptured { throw ExitCode(1) }
        case .refused(let refusal, let isAmbiguous):
            if output == .json { print(try Self.json(refusal)) }
            let names = refusal.candidates.map { "  \($0)\n" }.joined()
            let question = isAmbiguous || names.isEmpty ? "" : "did you mean:\n"
            FileHandle.standardError.write(
                Data("culvert capture explain: \(refusal.error)\n\(question)\(names)".utf8))
            throw ExitCode(isAmbiguous ? 2 : 1)
        }
    }

    private static func json(_ document: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(document), as: UTF8.self)
    }
}

/// The question to the daemon, and what its answers mean.
struct CaptureQuestion {
    enum Answer: Hashable {
        case explained(CaptureExplanation)
        case refused(CaptureRefusal, isAmbiguous: Bool)
    }

    let workload: String
    var to: SocketAddress?

    func ask(_ client: AdminClient) throws(AdminClientFailure) -> Answer {
        let response = try client.get(path)
        let decoder = JSONDecoder()
        switch response.status {
        case 200:
            if let explanation = try? decoder.decode(CaptureExplanation.self, from: response.body) {
                return .explained(explanation)
            }
        case 404, 409:
            if let refusal = try? decoder.decode(CaptureRefusal.self, from: response.body) {
                return .refused(refusal, isAmbiguous: response.status == 409)
            }
        default: break
        }
        throw AdminClientFailure(
            description: "\(client.address) gave an answer to /capture that is not a culvert-node's "
                + "(status \(response.status)); a waypoint, which captures nothing, another program, or another version?"
        )
    }

    var path: String {
        var allowed = CharacterSet.urlQueryAllowed
        allowed.remove(charactersIn: "&+=#")
        func quoted(_ text: String) -> String { text.addingPercentEncoding(withAllowedCharacters: allowed) ?? "" }
        return "/capture?workload=\(quoted(workload))" + (to.map { "&to=\(quoted($0.description))" } ?? "")
    }
}
