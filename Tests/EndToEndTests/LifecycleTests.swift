import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    @Suite("Lifecycle", .serialized)
    struct LifecycleTests {
        /// Rules and routes of a pod's namespace, as the programs of the machine see them.
        private func routing(_ mesh: MeshLab, _ pod: LabHost) async throws -> String {
            var text = ""
            for family in ["-4", "-6"] {
                text += try await mesh.lab.check(Launch("ip", [family, "rule"], in: pod)) + "\n"
                text +=
                    try await mesh.lab.check(Launch("ip", [family, "route", "show", "table", "all"], in: pod)) + "\n"
            }
            return text
        }

        /// One call from `late` to `far`, and the identity that far's node saw, empty for plaintext.
        private func identityOfLate(_ mesh: MeshLab) async throws -> String {
            let end = try mesh.node(2).log.end
            let verdict = try await mesh.probe(mesh.far.v4, from: mesh.late)
            #expect(verdict.outcome == "ok" && verdict.text("seen") == mesh.late.v4, "\(verdict)")
            let line = try await mesh.logged(
                2, ["src.addr=\"\(mesh.late.v4):", "direction=\"inbound\"", "reason=\"-\""], after: end)
            guard let start = line.range(of: "src.identity=\"") else { return "" }
            return String(line[start.upperBound...].prefix { $0 != "\"" })
        }

        @Test("a workload is added, changed and removed while the nodes run")
        func workloads() async throws {
            try await MeshLab.with { mesh in
                try await mesh.serve(in: mesh.late)
                let before = try await routing(mesh, mesh.late)
                #expect(try await identityOfLate(mesh) == "")

                func apply(_ text: String, _ account: String) async throws {
                    let end = try mesh.node(1).log.end
                    try await mesh.apply("workloads", text)
                    _ = try await mesh.logged(1, ["workload default/late is served"], after: end)
                    #expect(try await identityOfLate(mesh) == "spiffe://cluster.local/ns/default/sa/\(account)")
                }
                try await apply(mesh.workloads(MeshLab.workload(mesh.late, addresses: [mesh.late.v4])), "late")
                try await apply(
                    mesh.workloads(MeshLab.workload(mesh.late, account: "renamed", addresses: [mesh.late.v4])),
                    "renamed")
                // An address more: callers reach it through the mesh, too.
                try await apply(mesh.workloads(MeshLab.workload(mesh.late, account: "renamed")), "renamed")
                let end = try mesh.node(1).log.end
                let called = try await mesh.probe(mesh.late.v6, from: mesh.far)
                #expect(called.outcome == "ok" && called.text("seen") == mesh.far.v6, "\(called)")
                _ = try await mesh.logged(
                    1, ["dst.workload=\"late\"", "src.identity=\"spiffe://cluster.local/ns/default/sa/far\""],
                    after: end)

                try await mesh.apply("workloads", mesh.workloads())
                _ = try await mesh.logged(1, ["workload default/late is released"], after: end)
                #expect(try await identityOfLate(mesh) == "")
                #expect(try await routing(mesh, mesh.late) == before)
            }
        }

        @Test("what a stopped proxy leaves refuses, and uninstall removes all of it")
        func uninstall() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                func settings() async throws -> String {
                    let names = ["net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"]
                    return try await mesh.lab.check(Launch("sysctl", names, in: mesh.client))
                }
                let before = (try await routing(mesh, mesh.client), try await settings())
                let own = mesh.lab.nodes[0]
                let culvert = try Daemons.path("culvert")
                let arguments = [
                    "uninstall", "--node-name", "node-1", "--cgroup", own.cgroup, "--bpffs", mesh.lab.bpffs,
                    "--run-dir", "\(mesh.lab.folder)/run",
                ]
                try mesh.start(1)
                try await mesh.waitUntilReady(1)
                let early = try await mesh.lab.run(Launch(culvert, arguments, in: own), within: MeshLab.patience)
                #expect(!early.isSuccess && early.errors.contains("already runs"), "\(early.errors)")
                #expect(try await routing(mesh, mesh.client) != before.0)

                try await mesh.forget(1).stop(within: MeshLab.patience)
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "refused")
                _ = try await mesh.lab.check(Launch(culvert, arguments, in: own))
                #expect(try await routing(mesh, mesh.client) == before.0)
                #expect(try await settings() == before.1)
                #expect(!FileManager.default.fileExists(atPath: "\(mesh.lab.bpffs)/culvert/node-1"))
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok", "plain again")
                // Nothing left to remove is no error.
                _ = try await mesh.lab.check(Launch(culvert, arguments, in: own))
            }
        }

        @Test("a network namespace that is not there yet concerns one workload only")
        func missingNamespace() async throws {
            try await MeshLab.with { mesh in
                let path = mesh.client.namespacePath.replacing("-client", with: "-ghost")
                let ghost = MeshLab.workload(mesh.late, name: "ghost", addresses: ["10.10.1.200"], netns: path)
                try await mesh.apply("workloads", mesh.workloads(ghost))
                let answer = try await eventually("the report", within: MeshLab.patience) {
                    let answer = try await mesh.readiness(1)
                    return answer.code == 503 ? answer : nil
                }
                #expect(answer.body.contains("default/ghost") && answer.body.contains(path), "\(answer.body)")
                #expect(try await mesh.readiness(2).code == 200)
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
                let end = try mesh.node(1).log.end
                let name = try #require(path.split(separator: "/").last)
                for command in [
                    "netns add \(name)", "-n \(name) link set lo up", "-n \(name) addr add 10.10.1.200/32 dev lo",
                ] {
                    try await mesh.lab.check(Launch("ip", command.split(separator: " ").map(String.init)))
                }
                try await mesh.waitUntilReady(1)
                _ = try await mesh.logged(1, ["workload default/ghost is served"], after: end)
            }
        }

        @Test("a port taken inside a pod concerns one workload only")
        func portTaken() async throws {
            try await MeshLab.with { mesh in
                let squatter = try await mesh.serve(port: 15008, in: mesh.late)
                try await mesh.apply("workloads", mesh.workloads(MeshLab.workload(mesh.late)))
                let answer = try await eventually("the report", within: MeshLab.patience) {
                    let answer = try await mesh.readiness(1)
                    return answer.code == 503 ? answer : nil
                }
                #expect(answer.body.contains("default/late") && answer.body.contains("15008"), "\(answer.body)")
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
                try await squatter.killHard()
                try await mesh.waitUntilReady(1)
                #expect(try await identityOfLate(mesh) == "spiffe://cluster.local/ns/default/sa/late")
            }
        }

        @Test("a configuration that is wrong is refused with its place, and the last good one serves")
        func badConfiguration() async throws {
            try await MeshLab.with { mesh in
                // Read last, so of two of one name or address the new one is blamed.
                let wrong = [
                    ("kind: [", "wrong.yaml:"),
                    (MeshLab.workload(mesh.late, addresses: [mesh.client.v4]), mesh.client.v4),
                    (MeshLab.workload(mesh.late, protocol: "QUIC"), "protocol"),
                    (MeshLab.policy("p", "PERHAPS", "{}"), "action"),
                ]
                for (text, word) in wrong {
                    let ends = try [mesh.node(1).log.end, mesh.node(2).log.end]
                    try mesh.write("wrong", text)
                    for number in [1, 2] {
                        let line = try await mesh.logged(
                            number, ["configuration refused", word], after: ends[number - 1])
                        #expect(line.contains(/wrong\.yaml:\d+/), "\(line)")
                    }
                    #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
                    #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
                }
                try await mesh.apply("wrong", MeshLab.policy("nobody", "ALLOW", ""))
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "reset")
            }
        }

        @Test("SIGTERM lets an open transfer end and takes nothing new")
        func drain() async throws {
            try await MeshLab.with(settings: ["limits: {drain: 120s}"]) { mesh in
                let count = 32 << 20
                let reader = try mesh.background("slow", mesh.far.v4, "\(MeshLab.port)", "\(count)", from: mesh.client)
                _ = try await reader.line("asked")
                let node = try mesh.forget(1)
                node.send(SIGTERM)
                try await until("a refusal", within: MeshLab.patience) {
                    let verdict = try await mesh.probe(mesh.far.v4, from: mesh.client)
                    return ["refused", "reset"].contains(verdict.outcome)
                }
                #expect(node.isRunning, "it did not wait for the transfer: \(node.log.tail())")
                try reader.release()
                let verdict = try await reader.line("\"ok\"")
                #expect(verdict.ok && verdict.number("received") == count, "\(verdict)")
                #expect(try await node.exit(within: MeshLab.patience) == .exited(0), "\(node.log.tail())")
                #expect(node.log.line(containing: ["did not end in time"]) == nil)
            }
        }

        @Test("without its node proxy a workload is refused, never heard in the clear, and served again afterwards")
        func killed() async throws {
            let marker = "the marker of the end-to-end tests"
            try await MeshLab.with { mesh in
                let capture = try mesh.lab.capture(markers: [marker])
                func say(_ from: LabHost, _ to: LabHost) async throws -> Verdict {
                    try await mesh.traffic("say", to.v4, "\(MeshLab.port)", marker, from: from)
                }
                typealias Verdict = MeshLab.Verdict
                for number in [2, 1] {
                    let open = try mesh.background("wait", mesh.far.v4, "\(MeshLab.port)", from: mesh.client)
                    _ = try await open.line("open")
                    try await mesh.forget(number).killHard()
                    // A stream cut short must not look complete.
                    #expect(try await open.line("outcome").outcome == "reset")
                    for (from, to) in [(mesh.client, mesh.far), (mesh.far, mesh.near), (mesh.other, mesh.near)] {
                        let verdict = try await say(from, to)
                        #expect(
                            ["refused", "reset"].contains(verdict.outcome),
                            "node-\(number) is gone, \(from.name) to \(to.name): \(verdict)")
                    }
                    try mesh.start(number)
                    try await mesh.waitUntilReady(number)
                    for (from, to) in [(mesh.client, mesh.far), (mesh.far, mesh.near), (mesh.client, mesh.near)] {
                        // A pooled session to the old process may cost a caller one more refusal.
                        try await until("\(from.name) to \(to.name)", within: MeshLab.patience) {
                            try await say(from, to).outcome == "ok"
                        }
                    }
                }
                try await capture.stop()
                let report = try await capture.report()
                #expect(report.isComplete, "\(report)")
                #expect(report.markerHits.isEmpty, "\(report)")
                #expect(!report.tunnels().isEmpty, "\(report)")
                #expect(report.outsideTunnels().allSatisfy { $0.bytes == 0 }, "\(report)")
            }
        }

        @Test("a second proxy of the same node does not start")
        func twice() async throws {
            try await MeshLab.with { mesh in
                let ports = ["--admin-port", "16000", "--metrics-port", "16020", "--readiness-port", "16021"]
                let host = mesh.lab.nodes[0]
                let second = try await mesh.lab.run(
                    Launch(try Daemons.path("culvert-node"), mesh.arguments(1) + ports, in: host),
                    within: MeshLab.patience)
                #expect(second.status == .exited(1) && !second.timedOut, "\(second)")
                let first = try mesh.node(1)
                for word in ["node-1", "\(first.pid)", "--node-name"] {
                    #expect(second.errors.contains(word), "no '\(word)' in: \(second.errors)")
                }
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
            }
        }

        @Test("a service bound to a waypoint that does not run is not reached around it")
        func waypoint() async throws {
            try await MeshLab.with { mesh in
                let waypoint = """
                    ---
                    apiVersion: gateway.networking.k8s.io/v1
                    kind: Gateway
                    metadata: {name: gate, namespace: default}
                    spec:
                      gatewayClassName: culvert-waypoint
                      listeners: [{name: mesh, port: 15008, protocol: HBONE}]
                    ---
                    apiVersion: v1
                    kind: Service
                    metadata: {name: guarded, namespace: default, labels: {istio.io/use-waypoint: gate}}
                    spec:
                      clusterIPs: [10.96.0.99, "fd96::99"]
                      selector: {app: far}
                      ports: [{name: tcp, port: 80, targetPort: \(MeshLab.port)}]

                    """
                func refused(_ reasons: [String]) async throws {
                    for address in ["10.96.0.99", "fd96::99"] {
                        let ends = try [mesh.node(1).log.end, mesh.node(2).log.end]
                        let verdict = try await mesh.probe(address, port: 80, from: mesh.client)
                        #expect(["reset", "refused"].contains(verdict.outcome), "\(address): \(verdict)")
                        let line = try await mesh.logged(1, ["src.workload=\"client\"", "guarded"], after: ends[0])
                        #expect(reasons.contains { line.contains("reason=\"\($0)\"") }, "\(line)")
                        #expect(try mesh.node(2).log.line(containing: ["dst.workload=\"far\""], after: ends[1]) == nil)
                    }
                }
                try await mesh.apply("waypoint", waypoint)
                try await refused(["waypoint_unavailable"])
                // Declared and healthy by its word, but nobody listens.
                try await mesh.apply(
                    "waypoint",
                    waypoint + """
                        ---
                        apiVersion: culvert.dev/v1alpha1
                        kind: Workload
                        metadata:
                          name: gate
                          namespace: default
                          labels: {gateway.networking.k8s.io/gateway-name: gate}
                        spec: {addresses: [\(mesh.outside.v4), "\(mesh.outside.v6)"], node: node-2, serviceAccount: gate, protocol: TLS}

                        """)
                try await refused(["waypoint_unavailable"])
                #expect(try await mesh.probe(MeshLab.virtual.far.v4, port: 80, from: mesh.client).outcome == "ok")
            }
        }
    }
}
