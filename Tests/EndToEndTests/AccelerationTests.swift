import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// Tier T2 with real daemons: `client` and `near` share a node and may ask for acceleration.
    @Suite("Accelerated connections", .serialized)
    struct AccelerationTests {
        private func metric(_ mesh: MeshLab, _ name: String) async throws -> Int {
            let text = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
            let line = text.split(separator: "\n").first { $0.hasPrefix("\(name) ") }
            return try #require(line.flatMap { Int($0.split(separator: " ")[1]) }, "no \(name) in \(text)")
        }

        private func bytes(_ mesh: MeshLab) async throws -> Int {
            try await metric(mesh, "culvert_accelerated_bytes_total")
        }

        /// Changes what the two workloads ask for; nil: nothing.
        private func ask(_ mesh: MeshLab, client: String?, near: String?) async throws {
            var text = mesh.workloads()
            for (host, wish) in [(mesh.client, client), (mesh.near, near)] {
                guard let wish else { continue }
                let mine = MeshLab.workload(host)
                text = text.replacing(mine, with: mine.replacing("spec: {", with: "spec: {acceleration: \(wish), "))
            }
            try await mesh.apply("workloads", text)
        }

        private func field(_ name: String, of line: String) throws -> Int {
            let match = try #require(line.split(separator: " ").first { $0.hasPrefix("\(name)=") }, "\(name): \(line)")
            return try #require(Int(match.dropFirst(name.count + 1)))
        }

        /// The access-log line of a new connection with one echo: 8 bytes up, 7 down.
        private func line(_ mesh: MeshLab) async throws -> String {
            let end = try mesh.node(1).log.end
            let verdict = try await mesh.traffic("short", mesh.near.v4, "\(MeshLab.port)", "1", "1", from: mesh.client)
            #expect(verdict.ok, "\(verdict)")
            let line = try await mesh.logged(
                1, ["connection complete", "src.workload=\"client\"", "dst.workload=\"near\""], after: end)
            #expect(try field("bytes_sent", of: line) == 8 && field("bytes_recv", of: line) == 7, "\(line)")
            return line
        }

        /// The daemon says that it has new workloads before the kernel has the new rules.
        private func untilTier(_ tier: String, _ mesh: MeshLab) async throws -> String {
            try await eventually("a connection with tier=\"\(tier)\"", within: MeshLab.patience) {
                let line = try await line(mesh)
                return line.contains("tier=\"\(tier)\"") ? line : nil
            }
        }

        @Test("on for both workloads, off for one: access log and metrics tell the tier, open connections go on")
        func theSwitch() async throws {
            try await MeshLab.with(settings: ["mtls: STRICT"], nodes: [1]) { mesh in
                let isFit = try await metric(mesh, "culvert_acceleration_available") == 1
                #expect(try await line(mesh).contains("tier=\"direct\""))

                let end = try mesh.node(1).log.end
                try await ask(mesh, client: "sockmap", near: nil)
                guard isFit else {
                    _ = try await mesh.logged(1, ["acceleration: sockmap is not possible here"], after: end)
                    try await ask(mesh, client: "sockmap", near: "sockmap")
                    for _ in 0..<3 { #expect(try await line(mesh).contains("tier=\"direct\"")) }
                    #expect(try await bytes(mesh) == 0)
                    return
                }
                for _ in 0..<3 { #expect(try await line(mesh).contains("tier=\"direct\""), "one alone asks for it") }
                #expect(try await bytes(mesh) == 0)

                try await ask(mesh, client: "sockmap", near: "sockmap")
                let accelerated = try await untilTier("sockmap", mesh)
                let count = try field("bytes_accelerated", of: accelerated)
                // The client may have sent before the kernel had the server's end; the server may not.
                #expect(7...15 ~= count, "\(accelerated)")
                #expect(try await bytes(mesh) == count)
                // Bulk goes by TCP whenever its reader is behind, and arrives whole.
                let verdict = try await mesh.traffic(
                    "transfer", mesh.near.v6, "\(MeshLab.port)", "\(32 << 20)", from: mesh.client)
                #expect(verdict.ok, "\(verdict)")
                let bulk = try await mesh.logged(
                    1, ["bytes_sent=\(9 + 32 << 20)", "bytes_recv=\(64 + 32 << 20)", "reason=\"-\""], after: end)
                #expect(bulk.contains("tier=\"sockmap\""), "\(bulk)")

                let open = try mesh.background("open", mesh.near.v4, "\(MeshLab.port)", "1", from: mesh.client)
                _ = try await open.line("open")
                try await ask(mesh, client: "sockmap", near: "\"off\"")
                #expect(try await !untilTier("direct", mesh).contains("bytes_accelerated"))
                let before = try mesh.node(1).log.end
                try open.release()
                #expect(try await open.line("ok").ok)
                let mixed = try await mesh.logged(1, ["bytes_sent=15", "bytes_recv=14"], after: before)
                // What it said before the switch, and nothing of after.
                #expect(mixed.contains("tier=\"sockmap\""), "\(mixed)")
                #expect(try 7...15 ~= field("bytes_accelerated", of: mixed), "\(mixed)")
            }
        }
    }
}
