import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// Tier T1 with real daemons: `client` and `near` share a node, `other` and `far` another one.
    @Suite("Direct connections", .serialized)
    struct DirectTests {
        private func metric(_ mesh: MeshLab, _ words: String...) async throws -> Int {
            let text = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
            let lines = text.split(separator: "\n").filter { line in words.allSatisfy { line.contains($0) } }
            return lines.reduce(0) { $0 + (Int($1.split(separator: " ").last ?? "") ?? 0) }
        }

        private func direct(_ mesh: MeshLab) async throws -> Int {
            try await metric(mesh, "culvert_capture_events_total{event=\"direct_passed\"}")
        }

        @Test("the kernel carries it, and metrics and the access log tell it like any other")
        func telemetry() async throws {
            try await MeshLab.with(settings: ["mtls: STRICT"], nodes: [1]) { mesh in
                let end = try mesh.node(1).log.end
                let before = try await direct(mesh)
                // 'e' and `short 0`: eight bytes up, seven back.
                let verdict = try await mesh.traffic(
                    "short", mesh.near.v4, "\(MeshLab.port)", "1", "1", from: mesh.client)
                #expect(verdict.ok, "\(verdict)")
                let line = try await mesh.logged(
                    1, ["connection complete", "tier=\"direct\"", "dst.workload=\"near\""], after: end)
                for words in [
                    "src.addr=\"\(mesh.client.v4):", "src.identity=\"spiffe://cluster.local/ns/default/sa/client\"",
                    "dst.identity=\"spiffe://cluster.local/ns/default/sa/near\"", "bytes_sent=8", "bytes_recv=7",
                    "reason=\"-\"", "srtt=\"", "retransmits=0",
                ] { #expect(line.contains(words), "\(words) in \(line)") }
                #expect(try await direct(mesh) == before + 1)
                for name in ["opened", "closed"] {
                    for reporter in ["source", "destination"] {
                        let count = try await metric(
                            mesh, "istio_tcp_connections_\(name)_total", "reporter=\"\(reporter)\"",
                            "destination_workload=\"near\"", "source_workload=\"client\"")
                        #expect(count == 1, "\(name) \(reporter)")
                    }
                }
            }
        }

        @Test("the proxy's connections in the client's name leave the client's own ports alone")
        func ports() async throws {
            try await MeshLab.with(settings: ["sameNode: proxy"], nodes: [1]) { mesh in
                let held = try mesh.background("open", mesh.near.v4, "\(MeshLab.port)", "100", from: mesh.client)
                let open = try await held.line("\"event\": \"open\"")
                let log = try mesh.node(1).log.tail()
                #expect(open.number("count") == 100, "\(open) \(log)")
                let sockets = try await mesh.lab.check(
                    Launch("ss", ["-Htn", "state", "established"], in: mesh.near))
                let ports = sockets.matches(
                    of: try Regex("\(mesh.client.v4)\\]?(?:%lo)?:(\\d+)", as: (Substring, Substring).self)
                )
                .compactMap { UInt16($0.output.1) }
                // Each has two ends here. A direct connection of the client could have any of its ports, and with an
                // equal one the kernel would take the two for one.
                #expect(ports.count == 200 && ports.allSatisfy { $0 < 32768 }, "\(sockets.prefix(400))")
                try held.release()
                let end = try await held.line("\"ok\"")
                #expect(end.ok, "\(end)")
            }
        }

        @Test("a service whose endpoints are all on the node needs no proxy either")
        func service() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                let end = try mesh.node(1).log.end
                let before = try await direct(mesh)
                for address in [MeshLab.virtual.near.v4, MeshLab.virtual.near.v6] {
                    let verdict = try await mesh.probe(address, port: 80, from: mesh.client)
                    #expect(verdict.outcome == "ok" && verdict.text("remote") == address, "\(verdict)")
                    let dialled = address.contains(":") ? "[\(address)]" : address
                    let line = try await mesh.logged(
                        1, ["tier=\"direct\"", "dst.addr=\"\(dialled):80\"", "dst.workload=\"near\""], after: end)
                    #expect(line.contains("dst.service=\"near.default"), "\(line)")
                }
                #expect(try await direct(mesh) == before + 2)
            }
        }

        @Test("a connection that policy no longer allows ends within a second, also one that an earlier daemon allowed")
        func revocation() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                let doomed = try mesh.background("wait", mesh.near.v4, "\(MeshLab.port)", from: mesh.client)
                _ = try await doomed.line("open")
                #expect(try await metric(mesh, "culvert_direct_connections") == 1)

                // The kernel keeps it over a crash and a new daemon.
                let old = try mesh.forget(1)
                try await old.killHard()
                #expect(doomed.process.isRunning)
                try mesh.start(1)
                try await mesh.waitUntilReady(1)
                #expect(doomed.process.isRunning, "\(doomed.process.log.tail())")
                let admin = try await mesh.lab.curl("http://127.0.0.1:15000/connections", in: mesh.lab.nodes[0]).body
                #expect(admin.contains("\(mesh.client.v4):") && admin.contains("default/client"), "\(admin)")
                let before = try await direct(mesh)
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
                #expect(try await direct(mesh) == before + 1)

                let end = try mesh.node(1).log.end
                let rules = "{from: [{source: {principals: [\"cluster.local/ns/default/sa/client\"]}}]}"
                try await mesh.apply("policy", MeshLab.policy("shut-out", "DENY", rules))
                #expect(try await doomed.line("outcome").outcome == "reset")
                let line = try await mesh.logged(
                    1, ["src.workload=\"client\"", "tier=\"direct\"", "reason=\"policy_changed\""], after: end)
                #expect(line.contains("policy=\"default/shut-out\""), "\(line)")
                // The proxy refuses what comes after, with the policy's name.
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "reset")
                _ = try await mesh.logged(1, ["reason=\"policy_deny\"", "policy=\"default/shut-out\""], after: end)
            }
        }

        @Test("a connect() that was under way while policy changed is found in the seconds after it")
        func lateFlow() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                // No flow of its own: `plain` is behind no proxy. Its tuple becomes that of the late one.
                let late = try mesh.background("wait", mesh.plain.v4, "\(MeshLab.port)", from: mesh.client)
                let port = try await late.line("open").number("local")
                let rules = "{from: [{source: {principals: [\"cluster.local/ns/default/sa/client\"]}}]}"
                try await mesh.apply("policy", MeshLab.policy("shut-out", "DENY", rules))
                // Refused: the rules are in force, and the daemon has looked at what was open.
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "reset")
                #expect(late.process.isRunning)
                let pins = try await mesh.lab.check(
                    Launch("find", ["\(mesh.lab.bpffs)/culvert/node-1", "-name", "v*"], in: mesh.lab.nodes[0]))
                let written = try await mesh.lab.run(
                    Launch(
                        mesh.python,
                        [MeshLab.tool("late_flow.py"), pins, mesh.client.v4, mesh.near.v4, "\(port)", mesh.plain.v4]
                            + ["\(MeshLab.port)"], in: mesh.lab.nodes[0]), within: MeshLab.patience)
                try #require(written.isSuccess, "\(written.errors)")
                // The entry itself stays: it is no socket's that could take it away.
                #expect(try await late.line("outcome").outcome == "reset")
            }
        }

        @Test(
            "what is to be encrypted or to pass a waypoint now does not go on in clear", arguments: ["direct", "proxy"])
        func wayChanged(mode: String) async throws {
            try await MeshLab.with(settings: ["sameNode: \(mode)"], nodes: [1]) { mesh in
                let bound = mesh.workloads().replacingOccurrences(
                    of: "labels: {app: near}", with: "labels: {app: near, istio.io/use-waypoint: absent}")
                let boundService = mesh.services.replacingOccurrences(
                    of: "{name: near, namespace: default}",
                    with: "{name: near, namespace: default, labels: {istio.io/use-waypoint: absent}}")
                #expect(bound != mesh.workloads() && boundService != mesh.services)
                for (file, change, back, address, port) in [
                    (
                        "mesh", mesh.meshObject(["sameNode: tunnel"]), mesh.meshObject(["sameNode: \(mode)"]),
                        mesh.near.v4, MeshLab.port
                    ),
                    ("workloads", bound, mesh.workloads(), mesh.near.v6, MeshLab.port),
                    ("services", boundService, mesh.services, MeshLab.virtual.near.v4, 80),
                ] {
                    let before = try await direct(mesh)
                    let open = try mesh.background("wait", address, "\(port)", from: mesh.client)
                    _ = try await open.line("open")
                    #expect(try await direct(mesh) - before == (mode == "direct" ? 1 : 0))
                    let end = try mesh.node(1).log.end
                    try await mesh.apply(file, change)
                    #expect(try await open.line("outcome").outcome == "reset", "\(file)")
                    _ = try await mesh.logged(1, ["src.workload=\"client\"", "reason=\"policy_changed\""], after: end)
                    try await mesh.apply(file, back)
                }
                // Nothing is lost by what carries on without encryption.
                let open = try mesh.background("wait", mesh.near.v4, "\(MeshLab.port)", from: mesh.client)
                _ = try await open.line("open")
                try await mesh.apply("mesh", mesh.meshObject(["sameNode: \(mode == "direct" ? "proxy" : "direct")"]))
                try await mesh.apply("services", boundService)
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
                #expect(open.process.isRunning, "\(open.process.log.tail())")
            }
        }
    }
}
