import ArgumentParser
import Foundation
import MeshAdmin
import MeshModel
import MeshTelemetry
import Testing

@testable import culvert

@Suite("culvert capture explain")
struct CaptureExplainTests {
    private static let explanation = CaptureExplanation(
        workload: .init(
            Workload(
                name: ObjectName(namespace: "default", name: "shop"), addresses: [IPAddress(v4: 1)], node: "node-1")),
        node: "node-1", isCaptured: true, level: "L0", place: "cgroup /x", scope: "all", mtls: "STRICT",
        sameNode: "direct")
    private static let names = ["default/cart", "test/cart"].compactMap { ObjectName($0) }

    private static func sources(
        kind: DaemonFacts.Kind = .node, _ capture: (@Sendable (String, SocketAddress?) async -> CaptureAnswer)?
    ) -> AdminSources {
        AdminSources(
            daemon: DaemonFacts(kind: kind, name: "node-1", version: "0.1.0", cores: 2), snapshot: { MeshSnapshot() },
            connections: { [] }, certificates: { [] }, metrics: { "" }, notReady: { [] }, logLevel: { "info" },
            setLogLevel: { _ in nil }, capture: capture)
    }

    private static func ask(_ name: String, _ sources: AdminSources) async throws -> CaptureQuestion.Answer {
        try await asking(sources) { try CaptureQuestion(workload: name).ask($0) }
    }

    @Test("the daemon's answers arrive as they are, whatever the name is made of")
    func answers() async throws {
        let sources = Self.sources { name, destination in
            switch name {
            case "to": .ambiguous(destination.map { [ObjectName(namespace: "to", name: "\($0)")] } ?? [])
            case "default/shop": .explained(Self.explanation)
            case "cart": .ambiguous(Self.names)
            case "a b&c=d#é": .unknown(Self.names)
            default: .unknown([])
            }
        }
        #expect(try await Self.ask("default/shop", sources) == .explained(Self.explanation))
        for text in ["10.0.0.1:80", "[fd00::1]:80"] {
            let asked = try await asking(sources) {
                try CaptureQuestion(workload: "to", to: SocketAddress(text)).ask($0)
            }
            guard case .refused(let echo, _) = asked else { throw AdminClientFailure(description: "\(asked)") }
            #expect(echo.candidates == ["to/\(text)"])
        }
        #expect(
            try await Self.ask("cart", sources)
                == .refused(
                    CaptureRefusal(
                        error: "2 workloads are named \"cart\": say which namespace",
                        candidates: ["default/cart", "test/cart"]), isAmbiguous: true))
        #expect(
            try await Self.ask("a b&c=d#é", sources)
                == .refused(
                    CaptureRefusal(
                        error: "no workload \"a b&c=d#é\" is known to this node",
                        candidates: ["default/cart", "test/cart"]), isAmbiguous: false))
        #expect(
            try await Self.ask("nobody", sources)
                == .refused(
                    CaptureRefusal(error: "no workload \"nobody\" is known to this node", candidates: []),
                    isAmbiguous: false))
    }

    @Test("a waypoint, and a question without a name, are refused with what there is")
    func others() async throws {
        let error = await #expect(throws: AdminClientFailure.self) {
            try await Self.ask("shop", Self.sources(kind: .waypoint, nil))
        }
        #expect(error?.description.contains("not a culvert-node's (status 404)") == true)
        for path in ["/capture", "/capture?workload=", "/capture?name=x", "/capture?workload=x&to=y"] {
            let response = try await asking(Self.sources { _, _ in .unknown([]) }) { try $0.get(path) }
            #expect(response.status == 400)
            #expect(String(decoding: response.body, as: UTF8.self).contains("/capture?workload=NAMESPACE/NAME"))
        }
    }

    @Test("Nobody there is exit status 3, an empty name bad usage")
    func nobody() throws {
        // Port 0 can never be connected to.
        let command = try CaptureExplainCommand.parse(["default/shop", "--admin", "[::1]:0"])
        #expect(throws: ExitCode(3)) { try command.run() }
        for words in [
            [], [""], ["shop", "--output", "yaml"], ["shop", "--admin", "localhost"], ["shop", "--to", "near"],
        ] {
            #expect(throws: (any Error).self) { try CaptureExplainCommand.parse(words) }
        }
    }
}
