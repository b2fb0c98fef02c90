import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// The same configuration with the proxy in the path and without. `CULVERT_MEANING_SEED=N` repeats a run.
    @Suite("The same meaning on every way", .serialized)
    struct DirectMeaningTests {
        /// SplitMix64: the same numbers for the same seed, on every machine.
        private struct Seeded: RandomNumberGenerator {
            var state: UInt64

            mutating func next() -> UInt64 {
                state &+= 0x9E37_79B9_7F4A_7C15
                var mixed = state
                mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
                mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
                return mixed ^ mixed >> 31
            }
        }

        private struct Draw {
            var chance: Seeded

            mutating func one<T>(_ values: [T]) -> T { values.randomElement(using: &chance)! }

            mutating func policy(_ number: Int, _ mesh: MeshLab) -> String {
                let sources = [
                    "principals: [\"cluster.local/ns/default/sa/client\"]",
                    "notPrincipals: [\"cluster.local/ns/default/sa/near\"]", "namespaces: [default]",
                    "notNamespaces: [default]", "ipBlocks: [\"\(mesh.client.v4)/32\"]", "principals: [\"*\"]",
                ]
                let from = one([true, false]) ? "from: [{source: {\(one(sources))}}]" : ""
                let ports = one(["ports: [\"8080\"]", "ports: [\"8081\"]", "notPorts: [\"8080\"]"])
                let to = one([true, false]) ? "to: [{operation: {\(ports)}}]" : ""
                let rule = [from, to].filter { !$0.isEmpty }.joined(separator: ", ")
                return MeshLab.policy("drawn-\(number)", one(["ALLOW", "ALLOW", "DENY"]), "{\(rule)}")
            }

            mutating func mutualTLS() -> String {
                let ports = one(["", ", portLevelMtls: {8081: {mode: \(one(["STRICT", "PERMISSIVE"]))}}"])
                let selector = ports.isEmpty ? "" : "selector: {matchLabels: {app: near}}, "
                return """
                    ---
                    apiVersion: security.istio.io/v1
                    kind: PeerAuthentication
                    metadata: {name: drawn, namespace: default}
                    spec: {\(selector)mtls: {mode: \(one(["STRICT", "PERMISSIVE"]))}\(ports)}

                    """
            }
        }

        private struct Call {
            let source: LabHost
            let address: String
            let port: Int
            /// A waypoint is bound to what it asks for.
            let isBound: Bool
        }

        private func metric(_ mesh: MeshLab, _ word: String) async throws -> Int {
            let text = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
            let line = text.split(separator: "\n").first { !$0.hasPrefix("#") && $0.contains(word) }
            return Int(line?.split(separator: " ").last ?? "") ?? 0
        }

        private func direct(_ mesh: MeshLab) async throws -> Int { try await metric(mesh, "event=\"direct_passed\"") }

        /// Applies a file, and waits until the kernel has the rules of that configuration.
        private func enforce(_ mesh: MeshLab, _ file: String, _ text: String) async throws {
            let log = try mesh.node(1).log
            let end = log.end
            try mesh.write(file, text)
            let line = try await log.waitForLine(
                containing: ["configuration ", " workloads, "], after: end, within: MeshLab.patience)
            let number = try #require(line.firstMatch(of: /configuration (\d+):/).flatMap { Int($0.1) }, "\(line)")
            _ = try await eventually("the rules of configuration \(number)", within: MeshLab.patience) {
                try await metric(mesh, "culvert_direct_configuration") >= number ? true : nil
            }
        }

        /// The tier that a call has by what the configuration says; nil: it has none.
        private func tier(_ mesh: MeshLab, _ call: Call) async throws -> String? {
            struct Answer: Decodable {
                struct Route: Decodable { let tier: String? }
                let route: Route
            }
            let host = call.address.contains(":") ? "%5B\(call.address)%5D" : call.address
            let path = "capture?workload=default/\(call.source.name)&to=\(host):\(call.port)"
            let answer = try await mesh.lab.curl("http://127.0.0.1:15000/\(path)", in: mesh.lab.nodes[0])
            return try JSONDecoder().decode(Answer.self, from: Data(answer.body.utf8)).route.tier
        }

        @Test("random policies, modes, waypoints and services")
        func sameMeaning() async throws {
            let given = ProcessInfo.processInfo.environment["CULVERT_MEANING_SEED"].flatMap(UInt64.init)
            let seed = given ?? UInt64.random(in: 0...UInt64.max)
            print("CULVERT_MEANING_SEED=\(seed)")
            try await MeshLab.with(settings: ["sameNode: proxy"], nodes: [1]) { mesh in
                var draw = Draw(chance: Seeded(state: seed))
                try await mesh.serve(port: 8081, in: mesh.near)
                try await mesh.serve(in: mesh.client)
                let label = "istio.io/use-waypoint: absent"
                let boundWorkloads = mesh.workloads().replacingOccurrences(
                    of: "labels: {app: near}", with: "labels: {app: near, \(label)}")
                let boundServices = mesh.services.replacingOccurrences(
                    of: "{name: near, namespace: default}", with: "{name: near, namespace: default, labels: {\(label)}}"
                )
                try #require(boundWorkloads != mesh.workloads() && boundServices != mesh.services)
                var isBound = (workload: false, service: false)
                var straight = 0
                for round in 0..<5 {
                    // The first one has nothing that could keep the kernel from deciding.
                    let isPlain = round == 0
                    let policies =
                        isPlain ? "" : (0..<draw.one([1, 1, 2])).map { draw.policy(round * 2 + $0, mesh) }.joined()
                    let text = policies + draw.mutualTLS() + "# \(round)\n"
                    try await enforce(mesh, "policy", text)
                    let wanted = (
                        workload: !isPlain && draw.one([false, false, true]),
                        service: !isPlain && draw.one([false, false, true])
                    )
                    if wanted.workload != isBound.workload {
                        try await enforce(mesh, "workloads", wanted.workload ? boundWorkloads : mesh.workloads())
                    }
                    if wanted.service != isBound.service {
                        try await enforce(mesh, "services", wanted.service ? boundServices : mesh.services)
                    }
                    isBound = wanted
                    let isV4 = draw.one([true, false])
                    let near = isV4 ? mesh.near.v4 : mesh.near.v6
                    let calls = [
                        Call(source: mesh.client, address: near, port: 8080, isBound: isBound.workload),
                        Call(source: mesh.client, address: near, port: 8081, isBound: isBound.workload),
                        Call(
                            source: mesh.near, address: isV4 ? mesh.client.v4 : mesh.client.v6, port: 8080,
                            isBound: false),
                        Call(
                            source: mesh.client, address: isV4 ? MeshLab.virtual.near.v4 : MeshLab.virtual.near.v6,
                            port: 80, isBound: isBound.service),
                        Call(source: mesh.plain, address: near, port: 8080, isBound: isBound.workload),
                    ]
                    var outcomes: [String: [String]] = [:]
                    for mode in ["direct", "proxy"] {
                        try await enforce(mesh, "mesh", mesh.meshObject(["sameNode: \(mode)"]))
                        for call in calls {
                            let about: Comment =
                                "seed \(seed), round \(round), \(mode): \(call.source.name) to \(call.address) port \(call.port), bound \(isBound): \(text)"
                            // `plain` is not captured: nobody decides for it, and the server's side takes it for plaintext.
                            let isMeshed = call.source.name != mesh.plain.name
                            let tier = isMeshed ? try await tier(mesh, call) : nil
                            let before = try await direct(mesh)
                            let outcome = try await mesh.probe(call.address, port: call.port, from: call.source).outcome
                            outcomes[mode, default: []].append(outcome)
                            let grown = try await direct(mesh) - before
                            #expect(grown == (tier == "T1" ? 1 : 0), about)
                            #expect(grown == 0 || outcome == "ok", about)
                            #expect(grown == 0 || mode == "direct" && !call.isBound, about)
                            straight += grown
                        }
                    }
                    #expect(
                        outcomes["direct"] == outcomes["proxy"], "seed \(seed), round \(round), \(isBound): \(text)")
                    if isPlain { #expect(straight == 4, "nothing keeps the kernel from deciding") }
                }
            }
        }
    }
}
