import MeshTestKit
import Testing

extension EndToEnd {
    @Suite("Traffic", .serialized)
    struct TrafficTests {
        /// One way for a caller to reach a server.
        struct Way: Sendable {
            let from: LabHost
            let to: LabHost
            let dialled: String
            var port = MeshLab.port
            let family: Int
        }

        private func ways(_ mesh: MeshLab) -> [Way] {
            let pairs = [
                (mesh.client, mesh.far), (mesh.client, mesh.near), (mesh.far, mesh.near), (mesh.near, mesh.near),
            ]
            let virtual = [mesh.far: MeshLab.virtual.far, mesh.near: MeshLab.virtual.near]
            return pairs.flatMap { from, to in
                var ways = [
                    Way(from: from, to: to, dialled: to.v4, family: 4),
                    Way(from: from, to: to, dialled: to.v6, family: 6),
                    // A socket of a program that knows IPv6 only, as Java's and Go's often are.
                    Way(from: from, to: to, dialled: "::ffff:\(to.v4)", family: 4),
                ]
                if let address = virtual[to] {
                    ways.append(Way(from: from, to: to, dialled: address.v4, port: 80, family: 4))
                    ways.append(Way(from: from, to: to, dialled: address.v6, port: 80, family: 6))
                    ways.append(Way(from: from, to: to, dialled: "::ffff:\(address.v4)", port: 80, family: 4))
                }
                return ways
            }
        }

        @Test(
            "every pair connects, and both ends see the addresses they expect",
            arguments: ["direct", "proxy", "tunnel"])
        func addresses(sameNode: String) async throws {
            try await MeshLab.with(settings: ["sameNode: \(sameNode)"]) { mesh in
                for way in ways(mesh) {
                    let verdict = try await mesh.probe(way.dialled, port: way.port, from: way.from)
                    let name = "\(way.from.name) to \(way.to.name) by \(way.dialled): \(verdict)"
                    let own = way.family == 4 ? way.from.v4 : way.from.v6
                    let target = way.family == 4 ? way.to.v4 : way.to.v6
                    let dialled = way.dialled.replacing("::ffff:", with: "")
                    #expect(verdict.outcome == "ok", "\(name)")
                    #expect(verdict.text("remote") == dialled, "the caller sees what it asked for: \(name)")
                    #expect(verdict.text("seen") == own, "the server sees the caller's own address: \(name)")
                    #expect(verdict.text("accepted") == target, "the server's own address is the pod's: \(name)")
                }
            }
        }

        @Test("an undeclared destination is passed through, and its caller is untouched")
        func passthrough() async throws {
            try await MeshLab.with { mesh in
                for (address, own) in [(mesh.outside.v4, mesh.client.v4), (mesh.outside.v6, mesh.client.v6)] {
                    let out = try await mesh.probe(address, from: mesh.client)
                    #expect(out.outcome == "ok" && out.text("seen") == own, "\(out)")
                }
                // Also the other way: a caller outside, a meshed server, PERMISSIVE.
                let into = try await mesh.probe(mesh.far.v4, from: mesh.outside)
                #expect(into.outcome == "ok" && into.text("seen") == mesh.outside.v4, "\(into)")
                // A workload declared with protocol TCP is called in the clear.
                let plain = try await mesh.probe(mesh.plain.v4, from: mesh.client)
                #expect(plain.outcome == "ok" && plain.text("seen") == mesh.client.v4, "\(plain)")
            }
        }

        @Test("a server that speaks first is heard at once, without configuration")
        func serverFirst() async throws {
            try await MeshLab.with { mesh in
                for host in [mesh.far, mesh.near] {
                    try await mesh.serve("greet", port: 2525, in: host)
                    for address in [host.v4, host.v6] {
                        let verdict = try await mesh.traffic("greeted", address, "2525", from: mesh.client)
                        #expect(verdict.ok, "\(host.name): \(verdict)")
                    }
                }
            }
        }

        @Test("half-close and reset are carried both ways", arguments: ["direct", "proxy", "tunnel"])
        func ends(sameNode: String) async throws {
            try await MeshLab.with(settings: ["sameNode: \(sameNode)"]) { mesh in
                for host in [mesh.far, mesh.near] {
                    let half = try await mesh.traffic("halfclose", host.v4, "\(MeshLab.port)", from: mesh.client)
                    #expect(half.ok, "half-close, \(host.name): \(half)")
                    let reset = try await mesh.traffic("reset", host.v4, "\(MeshLab.port)", from: mesh.client)
                    #expect(reset.ok, "the server's reset, \(host.name): \(reset)")
                    _ = try await mesh.traffic("abort", host.v4, "\(MeshLab.port)", from: mesh.client)
                    let server = try #require(mesh.lab.processes.first { $0.name == "\(host.name)-serve" })
                    let saw = try await server.log.waitForLine(
                        containing: ["client ended"], within: MeshLab.patience)
                    #expect(saw.contains("\"reset\""), "the client's reset, \(host.name): \(saw)")
                }
            }
        }

        @Test("metrics and the access log tell both sides of a connection")
        func telemetry() async throws {
            try await MeshLab.with { mesh in
                let ends = try [mesh.node(1).log.end, mesh.node(2).log.end]
                // 'e' and `short 0`: eight bytes up, seven back.
                let verdict = try await mesh.traffic("short", MeshLab.virtual.far.v4, "80", "1", "1", from: mesh.client)
                #expect(verdict.ok, "\(verdict)")
                let common = [
                    "connection complete", "src.addr=\"\(mesh.client.v4):", "src.workload=\"client\"",
                    "src.namespace=\"default\"", "src.identity=\"spiffe://cluster.local/ns/default/sa/client\"",
                    "dst.workload=\"far\"", "dst.namespace=\"default\"",
                    "dst.identity=\"spiffe://cluster.local/ns/default/sa/far\"", "duration=\"", "reason=\"-\"",
                    "\(mesh.far.v4):\(MeshLab.port)",
                ]
                let sent = ["direction=\"outbound\"", "bytes_sent=8", "bytes_recv=7", "dst.service=\"far"]
                _ = try await mesh.logged(1, common + sent, after: ends[0])
                let received = ["direction=\"inbound\"", "bytes_sent=7", "bytes_recv=8"]
                _ = try await mesh.logged(2, common + received, after: ends[1])
                for (number, reporter) in [(1, "source"), (2, "destination")] {
                    for (metric, value) in [
                        ("istio_tcp_connections_opened_total", 1), ("istio_tcp_connections_closed_total", 1),
                        ("istio_tcp_sent_bytes_total", 7), ("istio_tcp_received_bytes_total", 8),
                    ] {
                        let found = try await eventually("\(metric) of \(reporter)", within: MeshLab.patience) {
                            let page = try await mesh.lab.curl(
                                "http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[number - 1])
                            return page.body.split(separator: "\n").first { line in
                                line.hasPrefix(metric + "{") && line.contains("reporter=\"\(reporter)\"")
                                    && line.contains("destination_workload=\"far\"")
                                    && line.contains("source_workload=\"client\"")
                            }
                        }
                        #expect(found.hasSuffix(" \(value)"), "\(found)")
                        #expect(found.contains("connection_security_policy=\"mutual_tls\""), "\(found)")
                    }
                }
            }
        }
    }
}
