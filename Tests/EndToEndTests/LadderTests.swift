import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// The rungs of the capture ladder with real daemons: what a workload gets is the same on each.
    @Suite("Capture levels", .serialized)
    struct LadderTests {
        /// Everything capture may change in a pod's namespace, as the programs of the machine see it.
        private func surroundings(_ mesh: MeshLab, _ pods: [LabHost]) async throws -> String {
            var text = ""
            for pod in pods {
                for command in [
                    "nft list ruleset", "ip -4 rule", "ip -6 rule", "ip -4 route show table all",
                    "ip -6 route show table all",
                    "sysctl net.ipv4.tcp_fwmark_accept net.ipv4.fwmark_reflect net.ipv6.fwmark_reflect",
                ] {
                    let words = command.split(separator: " ").map(String.init)
                    text += try await mesh.lab.check(Launch(words[0], Array(words.dropFirst()), in: pod)) + "\n"
                }
            }
            return text
        }

        private func expectTraffic(_ mesh: MeshLab) async throws {
            let end = try mesh.node(2).log.end
            for (from, address, port, seen) in [
                (mesh.client, mesh.far.v4, MeshLab.port, mesh.client.v4),
                (mesh.client, mesh.far.v6, MeshLab.port, mesh.client.v6),
                (mesh.client, MeshLab.virtual.far.v4, 80, mesh.client.v4),
                (mesh.client, mesh.near.v4, MeshLab.port, mesh.client.v4),
                (mesh.client, mesh.outside.v4, MeshLab.port, mesh.client.v4),
                (mesh.plain, mesh.far.v4, MeshLab.port, mesh.plain.v4),
                (mesh.far, mesh.near.v6, MeshLab.port, mesh.far.v6),
            ] {
                let verdict = try await mesh.probe(address, port: port, from: from)
                #expect(
                    verdict.outcome == "ok" && verdict.text("seen") == seen,
                    "\(from.name) to \(address): \(verdict)")
            }
            // Nobody listens there: only the proxy can have answered.
            let name = "far.default.svc.cluster.local"
            let answer = MeshLab.Verdict(
                try await mesh.lab.check(
                    Launch(
                        mesh.python,
                        [MeshLab.tool("dns.py"), "ask", mesh.plain.v4, name, mesh.plain.v6, name], in: mesh.client),
                    within: MeshLab.patience))
            let far = MeshLab.virtual.far.v4
            #expect(answer.ok && answer.description.contains("\"\(mesh.plain.v6)\": \"\(far)\""), "\(answer)")
            let identity = "src.identity=\"spiffe://cluster.local/ns/default/sa/client\""
            _ = try await mesh.logged(2, [identity, "dst.workload=\"far\""], after: end)
        }

        private func expectRefusal(_ mesh: MeshLab, _ outcomes: [String]) async throws {
            for (from, to) in [(mesh.client, mesh.far.v4), (mesh.client, mesh.far.v6), (mesh.client, mesh.near.v4)] {
                let verdict = try await mesh.probe(to, from: from)
                #expect(outcomes.contains(verdict.outcome), "\(from.name) to \(to): \(verdict)")
            }
        }

        @Test("traffic, policy, restart and uninstall", arguments: ["L0", "L1", "L2", "L3"])
        func level(_ level: String) async throws {
            try await MeshLab.with(nodes: [], level: level) { mesh in
                let pods = [mesh.client, mesh.near, mesh.far]
                let before = try await surroundings(mesh, pods)
                for number in [1, 2] { try mesh.start(number) }
                for number in [1, 2] { try await mesh.waitUntilReady(number) }

                _ = try await mesh.logged(1, ["capture level \(level)"])
                let host = mesh.lab.nodes[0]
                let metrics = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: host)
                #expect(metrics.body.contains("culvert_capture_level{level=\"\(level)\"} 1"), "\(metrics.body)")
                let culvert = try Daemons.path("culvert")
                let status = try await mesh.lab.check(Launch(culvert, ["status"], in: host))
                #expect(status.contains("level \(level)"), "\(status)")

                try await expectTraffic(mesh)
                try await mesh.apply("policy", MeshLab.policy("nobody", "ALLOW", ""))
                try await expectRefusal(mesh, ["reset"])
                try await mesh.apply("policy", MeshLab.policy("everybody", "ALLOW", "{}"))
                try await expectTraffic(mesh)

                try await mesh.forget(1).killHard()
                try await expectRefusal(mesh, ["refused"])
                try mesh.start(1)
                try await mesh.waitUntilReady(1)
                // A pooled session to the killed process may cost a caller one more refusal.
                try await until("traffic from node 2", within: MeshLab.patience) {
                    try await mesh.probe(mesh.near.v6, from: mesh.far).outcome == "ok"
                }
                try await expectTraffic(mesh)

                for number in [1, 2] {
                    try await mesh.forget(number).stop(within: MeshLab.patience)
                    let own = mesh.lab.nodes[number - 1]
                    _ = try await mesh.lab.check(
                        Launch(
                            culvert,
                            [
                                "uninstall", "--node-name", "node-\(number)", "--cgroup", own.cgroup, "--bpffs",
                                mesh.lab.bpffs, "--run-dir", "\(mesh.lab.folder)/run",
                            ], in: own))
                }
                #expect(try await surroundings(mesh, pods) == before)
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok", "plain again")
            }
        }

        private var withoutBPF: String {
            URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Tools/without_bpf.py")
                .path
        }

        @Test("where bpf() is denied the rules serve, and the log says why")
        func denied() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                for number in [1, 2] { try mesh.start(number, around: [mesh.python, withoutBPF]) }
                for number in [1, 2] { try await mesh.waitUntilReady(number) }
                let line = try await mesh.logged(1, ["capture level L3"])
                #expect(line.contains("connect hooks"), "\(line)")
                try await expectTraffic(mesh)
            }
        }

        @Test("where the packet filter has no zones, DNS by TCP alone is captured, and the log says so")
        func withoutZones() async throws {
            try await MeshLab.with(nodes: [], level: "L3") { mesh in
                let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
                try mesh.start(1, around: ["env", "PATH=\(MeshLab.tool("without_zones")):\(path)"])
                try await mesh.waitUntilReady(1)
                let line = try await mesh.logged(1, ["DNS is captured by TCP alone"])
                #expect(line.contains("CONFIG_NF_CONNTRACK_ZONES"), "\(line)")
                func dig(_ more: [String]) async throws -> String {
                    let name = "far.default.svc.cluster.local"
                    return try await mesh.lab.run(
                        Launch("dig", ["@\(mesh.outside.v4)", name, "+tries=1", "+time=5"] + more, in: mesh.client)
                    ).output
                }
                #expect(try await dig([]).contains("connection refused"), "nobody answers there")
                #expect(try await dig(["+tcp"]).contains(MeshLab.virtual.far.v4))
                let explained = try await mesh.lab.check(
                    Launch(try Daemons.path("culvert"), ["capture", "explain", "client"], in: mesh.lab.nodes[0]))
                #expect(explained.contains("CONFIG_NF_CONNTRACK_ZONES"), "\(explained)")
            }
        }

        @Test("a level that is unknown or cannot be had is refused")
        func refused() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                func start(_ level: String, around prefix: [String] = []) async throws -> CommandResult {
                    let command = prefix + [try Daemons.path("culvert-node")] + mesh.arguments(1)
                    return try await mesh.lab.run(
                        Launch(
                            command[0], Array(command.dropFirst()) + ["--capture-level", level],
                            in: mesh.lab.nodes[0]), within: MeshLab.patience)
                }
                let unknown = try await start("L9")
                #expect(unknown.status == .exited(2), "\(unknown)")
                #expect(unknown.errors.contains("L9") && unknown.errors.contains("L0, L1, L2, L3"), "\(unknown)")
                let denied = try await start("L0", around: [mesh.python, withoutBPF])
                #expect(denied.status == .exited(1), "\(denied)")
                #expect(denied.errors.contains("not permitted"), "\(denied)")
                // A machine without nftables: a file that is no program lies over it, for this process alone.
                let hidden = [
                    "unshare", "-m", "sh", "-c", "mount --bind /dev/null \"$(command -v nft)\" && exec \"$@\"", "sh",
                ]
                let bare = try await start("L3", around: hidden)
                #expect(bare.status == .exited(1) && bare.errors.contains("apt-get install nftables"), "\(bare)")
            }
        }
    }
}
