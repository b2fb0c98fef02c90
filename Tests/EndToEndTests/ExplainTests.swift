import Foundation
import MeshModel
import MeshTestKit
import Testing

extension EndToEnd {
    /// `culvert capture explain` of real daemons, while flows of every kind are made: the counters that it says would
    /// move do, and no other.
    @Suite("Capture explain", .serialized)
    struct ExplainTests {
        /// How many events of a kind a flow makes. The proxy pools its tunnels, so that some come only at times.
        typealias Expected = [String: ClosedRange<UInt64>]

        private func command(
            _ mesh: MeshLab, _ arguments: [String], node: Int = 1
        ) async throws -> CommandResult {
            try await mesh.lab.run(
                Launch(
                    try Daemons.path("culvert"), ["capture", "explain"] + arguments, in: mesh.lab.nodes[node - 1]),
                within: MeshLab.patience)
        }

        private func explain(
            _ mesh: MeshLab, _ host: LabHost, to destination: String? = nil
        ) async throws -> CaptureExplanation {
            let result = try await command(
                mesh, ["default/\(host.name)", "--output", "json"] + (destination.map { ["--to", $0] } ?? []),
                node: host.nodeNumber)
            guard result.isSuccess else { throw LabError(.command, "explain \(host.name): \(result)") }
            return try JSONDecoder().decode(CaptureExplanation.self, from: Data(result.output.utf8))
        }

        private func counts(_ mesh: MeshLab, _ host: LabHost) async throws -> [String: UInt64] {
            Dictionary(
                try await explain(mesh, host).flows.flatMap { $0.counters.map { ($0.event, $0.count) } },
                uniquingKeysWith: +)
        }

        /// Makes a flow and compares what each workload counted of it.
        private func expect(
            _ what: String, _ mesh: MeshLab, _ expected: [(LabHost, Expected)],
            sourceLocation: SourceLocation = #_sourceLocation, _ flow: () async throws -> Bool
        ) async throws {
            var before: [[String: UInt64]] = []
            for (host, _) in expected { before.append(try await counts(mesh, host)) }
            #expect(try await flow(), "\(what)", sourceLocation: sourceLocation)
            for ((host, events), old) in zip(expected, before) {
                for (event, now) in try await counts(mesh, host) {
                    let grown = now - (old[event] ?? 0)
                    #expect(
                        (events[event] ?? 0...0).contains(grown), "\(what): \(host.name) counted \(event) \(grown)",
                        sourceLocation: sourceLocation)
                }
            }
        }

        private func python(_ mesh: MeshLab, in host: LabHost, _ program: String) async throws -> Bool {
            let result = try await mesh.lab.run(
                Launch(mesh.python, ["-c", "import socket, struct\n\(program)"], in: host), within: MeshLab.patience)
            #expect(result.isSuccess, "\(result.errors)")
            return result.isSuccess
        }

        private static let query = #"""
            q = struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\3far\7default\3svc\7cluster\5local\0' + b'\0\1\0\1'
            """#

        /// One question of `client`, which only the proxy can answer.
        private func askByUDP(_ mesh: MeshLab) async throws -> Bool {
            try await python(
                mesh, in: mesh.client,
                """
                \(Self.query)
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
                s.sendto(q, ('\(mesh.outside.v4)', 53)); assert s.recvfrom(512)[0][7] == 1
                """)
        }

        private func start(_ mesh: MeshLab, kubelet: String) async throws {
            let traffic = "traffic.sidecar.istio.io/"
            try mesh.write(
                "workloads",
                [
                    MeshLab.workload(mesh.client, annotations: ["\(traffic)excludeOutboundPorts": "7070"]),
                    MeshLab.workload(mesh.near, annotations: ["\(traffic)excludeInboundPorts": "7070"]),
                    MeshLab.workload(mesh.far), MeshLab.workload(mesh.plain, protocol: "TCP"),
                ].joined())
            try mesh.start(1, more: ["--kubelet-cgroup", kubelet])
            try mesh.start(2)
            for number in [1, 2] { try await mesh.waitUntilReady(number) }
            try await mesh.serve(in: mesh.client)
            for host in [mesh.near, mesh.outside] { try await mesh.serve(port: 7070, in: host) }
        }

        @Test("every kind of flow moves the counters of its rows and no others")
        func flows() async throws {
            try await MeshLab.with(settings: ["mtls: STRICT"], nodes: []) { mesh in
                let (client, near, far) = (mesh.client, mesh.near, mesh.far)
                let node = mesh.lab.nodes[0]
                let kubelet = "\(node.cgroup)/kubelet"
                try FileManager.default.createDirectory(atPath: kubelet, withIntermediateDirectories: true)
                try await start(mesh, kubelet: kubelet)
                func probe(_ address: String, _ port: Int = MeshLab.port, from host: LabHost, is outcome: String = "ok")
                    async throws -> Bool
                {
                    try await mesh.probe(address, port: port, from: host).outcome == outcome
                }
                let proxied: Expected = ["outbound_marked": 1...1, "outbound_steered": 1...1, "exempt_proxy": 0...1]
                let leg: Expected = ["exempt_proxy": 1...1, "local_passed": 1...1]
                let none: Expected = [:]
                for (address, port) in [(far.v4, MeshLab.port), (far.v6, MeshLab.port), (MeshLab.virtual.far.v4, 80)] {
                    let arrival = leg.merging(["tunnel_steered": 0...1]) { $1 }
                    try await expect("to the other node, \(address)", mesh, [(client, proxied), (far, arrival)]) {
                        try await probe(address, port, from: client)
                    }
                }
                let there: Expected = ["direct_passed": 1...1]
                for (address, port) in [
                    (near.v4, MeshLab.port), (near.v6, MeshLab.port), (MeshLab.virtual.near.v4, 80),
                    (MeshLab.virtual.near.v6, 80),
                ] {
                    try await expect("straight, \(address)", mesh, [(client, ["direct": 1...1]), (near, there)]) {
                        try await probe(address, port, from: client)
                    }
                }
                let own = proxied.merging(leg) { $1 }.merging(["direct_no_rule": 1...1]) { $1 }
                for address in [MeshLab.virtual.near.v4, MeshLab.virtual.near.v6] {
                    try await expect("a service that is the caller itself, \(address)", mesh, [(near, own)]) {
                        let verdict = try await mesh.probe(address, port: 80, from: near)
                        return verdict.outcome == "ok" && [near.v4, near.v6].contains(verdict.text("seen"))
                    }
                }
                for address in [client.v4, client.v6, "127.0.0.1"] {
                    let stays: Expected = ["exempt_local": 1...1, "local_passed": 1...1]
                    try await expect("a self call, \(address)", mesh, [(client, stays)]) {
                        try await probe(address, from: client)
                    }
                }
                try await expect("excluded", mesh, [(client, ["exempt_excluded": 1...1])]) {
                    try await probe(mesh.outside.v4, 7070, from: client)
                }
                try await expect("excluded at the server", mesh, [(near, ["excluded_passed": 1...1])]) {
                    try await probe(near.v4, 7070, from: mesh.outside)
                }
                try await expect("DNS by UDP", mesh, [(client, ["dns_captured": 1...1])]) {
                    try await askByUDP(mesh)
                }
                try await expect("DNS by TCP", mesh, [(client, proxied)]) {
                    try await python(
                        mesh, in: client,
                        """
                        \(Self.query)
                        s = socket.create_connection(('\(mesh.outside.v4)', 53), timeout=20)
                        s.sendall(struct.pack('>H', len(q)) + q); assert s.recv(512)
                        """)
                }
                try await expect("other UDP", mesh, [(client, none)]) {
                    try await python(
                        mesh, in: client,
                        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('\(mesh.outside.v4)', 9999))")
                }
                try await expect("link-local", mesh, [(client, ["connect_refused_link_local": 1...1])]) {
                    try await python(
                        mesh, in: client,
                        """
                        device = next(n for n, name in socket.if_nameindex() if name != 'lo')
                        try: socket.socket(socket.AF_INET6).connect(('fe80::1', 80, 0, device)); assert False
                        except OSError as e: assert e.errno == 101, e
                        """)
                }
                // STRICT: the proxy resets what has no identity; the kubelet alone passes (P8).
                for caller in [mesh.outside, node] {
                    try await expect("plaintext of \(caller.name)", mesh, [(near, ["inbound_steered": 1...1])]) {
                        try await probe(near.v4, from: caller, is: "reset")
                    }
                }
                for address in [near.v4, near.v6] {
                    let passed: Expected = ["probe": 1...1, "probe_passed": 1...1]
                    try await expect("a health probe, \(address)", mesh, [(near, passed)]) {
                        try await mesh.lab.check(
                            Launch(
                                mesh.python, [MeshLab.tool("traffic.py"), "probe", address, "\(MeshLab.port)", "30"],
                                in: node, cgroup: kubelet)
                        ).contains("\"outcome\": \"ok\"")
                    }
                }
                // What is told beforehand is what the flows above did.
                for (address, flow, tier) in [
                    ("\(far.v4):\(MeshLab.port)", "outbound.proxied", nil),
                    ("\(MeshLab.virtual.far.v4):80", "outbound.proxied", nil),
                    ("\(near.v4):\(MeshLab.port)", "outbound.direct", "T1"),
                    ("[\(MeshLab.virtual.near.v6)]:80", "outbound.direct", "T1"),
                    ("\(client.v4):\(MeshLab.port)", "inside.self", nil),
                    ("\(mesh.outside.v4):7070", "outbound.excluded", nil),
                    ("\(mesh.outside.v4):53", "outbound.dns-tcp", nil), ("[fe80::1]:80", "outbound.refused", nil),
                ] as [(String, String, String?)] {
                    let route = try await explain(mesh, client, to: address).route
                    #expect(route?.flow == flow && route?.tier == tier, "\(address): \(route as Any)")
                }
                let answer = try await explain(mesh, near)
                #expect(answer.flows.first { $0.id == "inbound.probe" }?.note == "from \(kubelet)", "\(answer)")
                #expect(answer.mtls == "STRICT (Mesh)" && answer.scope.contains("all but port 7070"), "\(answer)")
                #expect(answer.listeners.map(\.role) == ["outbound", "inbound", "tunnel", "dns"], "\(answer)")
                #expect(answer.listeners.allSatisfy { $0.isPresent }, "\(answer)")
                #expect(answer.neighbours.map(\.name) == ["default/client"], "\(answer)")
                #expect(answer.neighbours.allSatisfy { $0.tier == "T1" && $0.note == "all ports" }, "\(answer)")

                // What keeps connections from being direct is said, and moves its counter.
                try await mesh.apply(
                    "policy",
                    """
                    apiVersion: security.istio.io/v1
                    kind: AuthorizationPolicy
                    metadata: {name: by-address, namespace: default}
                    spec:
                      selector: {matchLabels: {app: near}}
                      action: ALLOW
                      rules: [{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}]

                    """)
                let asked = proxied.merging(["direct_no_rule": 1...1, "direct_stale": 0...1]) { $1 }
                try await until("the policy holds", within: MeshLab.patience) {
                    try await explain(mesh, client).neighbours.first { $0.name == "default/near" }?.tier == "T0"
                }
                let judged = try await explain(mesh, client).neighbours.first { $0.name == "default/near" }
                #expect(judged?.note.contains("AuthorizationPolicy default/by-address") == true, "\(judged as Any)")
                try await expect("policy wants the proxy", mesh, [(client, asked), (near, leg)]) {
                    try await probe(near.v4, from: client)
                }
            }
        }

        @Test("where rules capture, the rules count, and beside them the hooks", arguments: ["L2", "L3"])
        func rules(_ level: String) async throws {
            try await MeshLab.with(nodes: [], level: level) { mesh in
                let (client, near, far) = (mesh.client, mesh.near, mesh.far)
                try await start(mesh, kubelet: "\(mesh.lab.nodes[0].cgroup)/proxy")
                let proxied: Expected = [
                    level == "L2" ? "outbound_marked" : "outbound_steered": 1...1, "exempt_proxy": 0...1,
                ]
                let leg: Expected = ["exempt_proxy": 1...1]
                let arrival: Expected = ["exempt_proxy": 1...1, "tunnel_steered": 0...1]
                let plain: Expected = ["exempt_proxy": 1...1, "inbound_steered": 1...1]
                let cases: [(String, String, Int, LabHost, [(LabHost, Expected)])] = [
                    ("the other node", far.v4, MeshLab.port, client, [(client, proxied), (far, arrival)]),
                    ("the other node", far.v6, MeshLab.port, client, [(client, proxied), (far, arrival)]),
                    ("this node", near.v4, MeshLab.port, client, [(client, proxied), (near, leg)]),
                    ("a self call", client.v4, MeshLab.port, client, [(client, ["exempt_local": 1...1])]),
                    ("excluded", mesh.outside.v4, 7070, client, [(client, ["exempt_excluded": 1...1])]),
                    ("excluded at the server", near.v4, 7070, mesh.outside, [(near, ["excluded_passed": 1...1])]),
                    ("plaintext", near.v4, MeshLab.port, mesh.outside, [(near, plain)]),
                ]
                for (what, address, port, from, expected) in cases {
                    try await expect("\(what), \(address)", mesh, expected) {
                        try await mesh.probe(address, port: port, from: from).outcome == "ok"
                    }
                }
                try await expect("DNS by UDP", mesh, [(client, ["dns_captured": 1...1])]) {
                    try await askByUDP(mesh)
                }
                // A caller that is no workload of the mesh has no name, and no name of somebody else.
                let metrics = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
                #expect(
                    metrics.split(separator: "\n").contains {
                        $0.hasPrefix("istio_tcp_connections_opened_total{")
                            && $0.contains("source_workload=\"unknown\"") && $0.contains("source_principal=\"unknown\"")
                            && $0.contains("destination_workload=\"near\"")
                    }, "\(metrics)")
                let answer = try await explain(mesh, client)
                #expect(answer.level == level && answer.neighbours.allSatisfy { $0.tier == "T0" }, "\(answer)")
                let text = try await command(mesh, ["client"])
                #expect(text.output.contains("nft inet culvert inbound"), "\(text)")
                #expect(text.output.contains("nft inet culvert questions"), "\(text)")
                try await mesh.apply("mesh", mesh.meshObject(["dnsCapture: false"]))
                try await until("DNS is not captured", within: MeshLab.patience) {
                    try await explain(mesh, client).flows.first { $0.id == "outbound.dns-udp" }?.note
                        == "switched off for this workload"
                }
            }
        }

        @Test("names that are wrong, workloads that are not captured, and nobody to ask")
        func refusals() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                try await mesh.apply(
                    "workloads", mesh.workloads(MeshLab.workload(mesh.outside, name: "near", namespace: "shop")))
                for (arguments, status, words) in [
                    (["default/clint"], 1, "did you mean:\n  default/client\n"),
                    (["nobody"], 1, "no workload \"nobody\" is known to this node"),
                    (["near"], 2, "say which namespace\n  default/near\n  shop/near\n"),
                    (["default/near", "--admin", "127.0.0.1:1"], 3, "Is the daemon running?"),
                    ([""], 2, "NAMESPACE/NAME"),
                ] {
                    let result = try await command(mesh, arguments)
                    #expect(result.status == .exited(Int32(status)), "\(arguments): \(result)")
                    #expect(result.errors.contains(words) && result.output.isEmpty, "\(arguments): \(result)")
                }
                let json = try await command(mesh, ["clint", "--output", "json"])
                let refusal = try JSONDecoder().decode(CaptureRefusal.self, from: Data(json.output.utf8))
                #expect(json.status == .exited(1) && refusal.candidates == ["default/client"], "\(json)")
                for (name, words) in [
                    ("far", "belongs to node node-2"), ("plain", "its protocol is TCP"), ("other", "node-2"),
                ] {
                    let result = try await command(mesh, [name])
                    #expect(result.status == .exited(1), "\(result)")
                    #expect(result.output.contains("not captured") && result.output.contains(words), "\(result)")
                }
                let text = try await command(mesh, ["client"])
                #expect(text.isSuccess && text.output.hasPrefix("default/client on node-1: captured at level L0\n"))
                #expect(!text.output.contains("\u{1b}"), "no colour into a pipe")
                #expect(text.output.contains("  T1    default/near  all ports"), "\(text.output)")
            }
        }
    }
}
