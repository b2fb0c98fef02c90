import MeshTestKit
import Testing

extension EndToEnd {
    /// What operators keep out of the mesh by annotations, with real daemons: on the wire, at the server, live.
    @Suite("Exclusions", .serialized)
    struct ExclusionTests {
        private static let traffic = "traffic.sidecar.istio.io/"

        /// The usual workloads, with these annotations of the client and of both servers.
        private func workloads(
            _ mesh: MeshLab, client: [String: String] = [:], servers: [String: String] = [:]
        ) -> String {
            [
                MeshLab.workload(mesh.client, annotations: client), MeshLab.workload(mesh.near, annotations: servers),
                MeshLab.workload(mesh.far, annotations: servers), MeshLab.workload(mesh.other, namespace: "shop"),
                MeshLab.workload(mesh.plain, protocol: "TCP"),
            ].joined()
        }

        /// Applies it and waits until the kernel has it: each node says so.
        private func apply(_ mesh: MeshLab, _ text: String, _ words: String) async throws {
            let ends = mesh.nodes.map(\.log.end)
            try await mesh.apply("workloads", text)
            for (node, end) in zip(mesh.nodes, ends) {
                _ = try await node.log.waitForLine(containing: [words], after: end, within: MeshLab.patience)
            }
        }

        private func say(
            _ mesh: MeshLab, _ marker: String, _ address: String, port: Int = MeshLab.port, from host: LabHost? = nil
        ) async throws -> String {
            try await mesh.traffic("say", address, "\(port)", marker, from: host ?? mesh.client).outcome
        }

        private func excluded(_ mesh: MeshLab) async throws -> String? {
            let page = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
            let line = page.split(separator: "\n").first { $0.contains("event=\"exempt_excluded\"") }
            return line?.split(separator: " ").last.map(String.init)
        }

        @Test(
            "excluded blocks and ports leave in clear text, all else does not; changes are live and touch nothing open")
        func wire() async throws {
            try await MeshLab.with(settings: ["mtls: STRICT"]) { mesh in
                let secret = (0..<5).map { "a secret of the mesh, number \($0)" }
                let open = (0..<2).map { "an excluded text, number \($0)" }
                for host in [mesh.near, mesh.far] { try await mesh.serve(port: 7070, in: host) }
                let capture = try mesh.lab.capture(markers: secret + open)
                let held = try mesh.background("wait", mesh.far.v4, "\(MeshLab.port)", from: mesh.client)
                _ = try await held.line("open")
                #expect(try await say(mesh, secret[0], mesh.far.v4) == "ok")
                #expect(try await say(mesh, secret[1], mesh.far.v6, port: 7070) == "ok")
                #expect(try await say(mesh, "from outside", mesh.far.v4, from: mesh.outside) == "reset")

                let blocks = "\(mesh.far.v4)/32,\(mesh.near.v4)/32"
                try await apply(
                    mesh,
                    workloads(
                        mesh,
                        client: [
                            "\(Self.traffic)excludeOutboundIPRanges": blocks,
                            "\(Self.traffic)excludeOutboundPorts": "7070",
                        ],
                        servers: ["\(Self.traffic)excludeInboundPorts": "\(MeshLab.port),7070"]),
                    "traffic in clear text")
                #expect(try await say(mesh, open[0], mesh.far.v4) == "ok")
                #expect(try await say(mesh, open[1], mesh.far.v6, port: 7070) == "ok")
                #expect(try await excluded(mesh) == "2")
                #expect(try await say(mesh, secret[2], mesh.far.v6) == "ok", "neither its block nor its port")
                // Inbound it is the server's operator who chose, STRICT or not.
                #expect(try await say(mesh, "from outside", mesh.far.v4, from: mesh.outside) == "ok")
                // On one node as well, and not as a direct connection of the mesh.
                let near = try await mesh.probe(mesh.near.v4, from: mesh.client)
                #expect(near.outcome == "ok" && near.text("seen") == mesh.client.v4, "\(near)")
                #expect(try await excluded(mesh) == "3")
                #expect(held.process.isRunning, "\(held.process.log.tail())")

                try await apply(mesh, workloads(mesh), "captured whole again")
                #expect(try await say(mesh, secret[3], mesh.far.v4) == "ok")
                #expect(try await say(mesh, secret[4], mesh.far.v6, port: 7070) == "ok")
                #expect(try await say(mesh, "from outside", mesh.far.v4, from: mesh.outside) == "reset")
                #expect(try await excluded(mesh) == "3")
                #expect(held.process.isRunning, "\(held.process.log.tail())")

                try await capture.stop()
                let report = try await capture.report()
                #expect(report.isComplete, "\(report)")
                #expect(Set(report.markerHits.map(\.marker)) == Set(open), "\(report.markerHits)")
            }
        }

        @Test("a workload that captures only what it lists, and one that bypasses inbound capture")
        func lists() async throws {
            try await MeshLab.with(settings: ["mtls: STRICT"]) { mesh in
                let secret = "a secret of the mesh", open = "an excluded text"
                let capture = try mesh.lab.capture(markers: [secret, open])
                try await apply(
                    mesh,
                    workloads(
                        mesh, client: ["\(Self.traffic)includeOutboundIPRanges": "\(mesh.far.v4)/32"],
                        servers: ["ambient.istio.io/bypass-inbound-capture": "true"]),
                    "traffic in clear text")
                #expect(try await say(mesh, secret, mesh.far.v4) == "ok", "the tunnel is not bypassed")
                #expect(try await say(mesh, open, mesh.far.v6) == "ok")
                #expect(try await say(mesh, open, mesh.outside.v4) == "ok")
                try await capture.stop()
                let report = try await capture.report()
                #expect(report.isComplete && !report.tunnels().isEmpty, "\(report)")
                #expect(Set(report.markerHits.map(\.marker)) == [open], "\(report.markerHits)")
            }
        }

        @Test("an annotation that cannot be read is refused with its place, and what was served goes on")
        func refused() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                let end = try mesh.node(1).log.end
                try mesh.write("workloads", workloads(mesh, client: ["\(Self.traffic)excludeOutboundPorts": "http"]))
                let line = try await mesh.logged(1, ["configuration refused"], after: end)
                #expect(line.contains("workloads.yaml:") && line.contains("excludeOutboundPorts"), "\(line)")
                #expect(try await say(mesh, "still captured", mesh.near.v4) == "ok")
            }
        }
    }
}
