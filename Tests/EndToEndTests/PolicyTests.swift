import MeshTestKit
import Testing

extension EndToEnd {
    @Suite("Policy", .serialized)
    struct PolicyTests {
        /// Policies of namespace `default`, and whom they let in: `client` (default), `other` (shop) and `plain`, whose
        /// connections come in the clear.
        private struct Case {
            let name: String
            let policies: String
            let client: Bool
            let other: Bool
            let plain: Bool
            let reason: String

            init(
                _ name: String, _ policies: String, client: Bool, other: Bool, plain: Bool,
                reason: String = "policy_no_allow"
            ) {
                (self.name, self.policies, self.client, self.other) = (name, policies, client, other)
                (self.plain, self.reason) = (plain, reason)
            }
        }

        private func cases(_ mesh: MeshLab) -> [Case] {
            func source(_ text: String) -> String { "{from: [{source: {\(text)}}]}" }
            func allow(_ rules: String) -> String { MeshLab.policy("judge", "ALLOW", rules) }
            func deny(_ rules: String) -> String { MeshLab.policy("judge", "DENY", rules) }
            let client = "cluster.local/ns/default/sa/client"
            let blocks = "[\"\(mesh.client.v4)/32\", \"\(mesh.client.v6)/128\"]"
            let port = MeshLab.port
            return [
                Case(
                    "principals", allow(source("principals: [\"\(client)\"]")), client: true, other: false,
                    plain: false),
                Case(
                    "principals by prefix", allow(source("principals: [\"cluster.local/ns/shop/*\"]")),
                    client: false, other: true, plain: false),
                Case(
                    "notPrincipals", deny(source("notPrincipals: [\"\(client)\"]")), client: true, other: false,
                    plain: false, reason: "policy_deny"),
                Case("namespaces", allow(source("namespaces: [shop]")), client: false, other: true, plain: false),
                Case(
                    "notNamespaces", deny(source("notNamespaces: [shop]")), client: false, other: true, plain: false,
                    reason: "policy_deny"),
                Case("ipBlocks", allow(source("ipBlocks: \(blocks)")), client: true, other: false, plain: false),
                Case("notIpBlocks", allow(source("notIpBlocks: \(blocks)")), client: false, other: true, plain: true),
                Case(
                    "ports", allow("{to: [{operation: {ports: [\"\(port)\"]}}]}"), client: true, other: true,
                    plain: true),
                Case(
                    "another port", allow("{to: [{operation: {ports: [\"\(port + 1)\"]}}]}"), client: false,
                    other: false, plain: false),
                Case(
                    "notPorts", deny("{to: [{operation: {notPorts: [\"\(port)\"]}}]}"), client: true, other: true,
                    plain: true),
                Case(
                    "not another port", deny("{to: [{operation: {notPorts: [\"\(port + 1)\"]}}]}"), client: false,
                    other: false, plain: false, reason: "policy_deny"),
                Case("nothing", allow(""), client: false, other: false, plain: false),
                Case(
                    "DENY before ALLOW",
                    MeshLab.policy("everybody", "ALLOW", "{}") + deny(source("principals: [\"\(client)\"]")),
                    client: false, other: true, plain: true, reason: "policy_deny"),
            ]
        }

        @Test("ALLOW and DENY hold between nodes and on one node, and the log names the policy")
        func table() async throws {
            try await MeshLab.with { mesh in
                for (index, example) in cases(mesh).enumerated() {
                    try await mesh.apply("policy", example.policies)
                    for (caller, isAllowed) in [
                        (mesh.client, example.client), (mesh.other, example.other), (mesh.plain, example.plain),
                    ] {
                        for server in [mesh.near, mesh.far] {
                            let isV4 = index.isMultiple(of: 2)
                            let end = try mesh.node(server.nodeNumber).log.end
                            let verdict = try await mesh.probe(isV4 ? server.v4 : server.v6, from: caller)
                            let title = "\(example.name): \(caller.name) to \(server.name): \(verdict)"
                            #expect(verdict.outcome == (isAllowed ? "ok" : "reset"), "\(title)")
                            guard !isAllowed else { continue }
                            let line = try await mesh.logged(
                                server.nodeNumber,
                                [
                                    "src.addr=\"\(isV4 ? caller.v4 : "[\(caller.v6)]"):",
                                    "dst.workload=\"\(server.name)\"", "reason=\"\(example.reason)\"",
                                ], after: end)
                            #expect(line.contains("policy=\"default/judge\""), "\(title): \(line)")
                        }
                    }
                }
            }
        }

        @Test("a policy that changes ends the connections it no longer allows, and only those")
        func liveChange() async throws {
            try await MeshLab.with { mesh in
                for server in [mesh.far, mesh.near] {
                    try await mesh.apply("policy", MeshLab.policy("everybody", "ALLOW", "{}"))
                    let doomed = try mesh.background("wait", server.v4, "\(MeshLab.port)", from: mesh.client)
                    let spared = try mesh.background("wait", server.v4, "\(MeshLab.port)", from: mesh.other)
                    _ = try await (doomed.line("open"), spared.line("open"))
                    let end = try mesh.node(server.nodeNumber).log.end
                    try await mesh.apply(
                        "policy",
                        MeshLab.policy(
                            "shut-out", "DENY",
                            "{from: [{source: {principals: [\"cluster.local/ns/default/sa/client\"]}}]}"))
                    try await until("the end of \(server.name)'s connection", within: .seconds(5)) {
                        doomed.process.log.line(containing: ["outcome"]) != nil
                    }
                    #expect(try await doomed.line("outcome").outcome == "reset")
                    let line = try await mesh.logged(
                        server.nodeNumber, ["src.workload=\"client\"", "reason=\"policy_changed\""], after: end)
                    #expect(line.contains("policy=\"default/shut-out\""), "\(line)")
                    #expect(spared.process.isRunning, "\(spared.process.log.tail())")
                    let after = try await mesh.probe(server.v4, from: mesh.client)
                    #expect(after.outcome == "reset", "\(after)")
                    try await spared.process.killHard()
                }
            }
        }

        @Test("plaintext is taken under PERMISSIVE and refused under STRICT")
        func mutualTLS() async throws {
            try await MeshLab.with { mesh in
                for isStrict in [false, true] {
                    let mode = isStrict ? "STRICT" : "PERMISSIVE"
                    try await mesh.apply(
                        "peers",
                        """
                        apiVersion: security.istio.io/v1
                        kind: PeerAuthentication
                        metadata: {name: mode, namespace: default}
                        spec: {mtls: {mode: \(mode)}}

                        """)
                    for server in [mesh.near, mesh.far] {
                        let end = try mesh.node(server.nodeNumber).log.end
                        for caller in [mesh.plain, mesh.outside] {
                            let verdict = try await mesh.probe(server.v4, from: caller)
                            let title = "\(mode): \(caller.name) to \(server.name): \(verdict)"
                            #expect(verdict.outcome == (isStrict ? "reset" : "ok"), "\(title)")
                            let line = try await mesh.logged(
                                server.nodeNumber,
                                [
                                    "src.addr=\"\(caller.v4):", "dst.workload=\"\(server.name)\"",
                                    "reason=\"\(isStrict ? "mtls_required" : "-")\"",
                                ], after: end)
                            #expect(!line.contains("src.identity"), "\(title): \(line)")
                        }
                        let meshed = try await mesh.probe(server.v4, from: mesh.client)
                        #expect(meshed.outcome == "ok", "\(mode): client to \(server.name): \(meshed)")
                    }
                }
            }
        }
    }
}
