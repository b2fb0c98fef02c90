import MeshTestKit
import Testing

extension EndToEnd {
    /// The long ones, on one mesh after the other.
    @Suite("Load", .serialized)
    struct LoadTests {
        @Test("1 GiB goes both ways at once between nodes, unharmed")
        func transfer() async throws {
            try await MeshLab.with { mesh in
                let verdict = try await mesh.traffic(
                    "transfer", mesh.far.v4, "\(MeshLab.port)", "\(1 << 30)", from: mesh.client, within: .seconds(240))
                #expect(verdict.ok && verdict.number("received") == 1 << 30, "\(verdict)")
                #expect(verdict.text("up") == verdict.text("down"))
            }
        }

        @Test("2,000 connections are open at once, 40,000 short ones succeed, and no descriptor is lost")
        func connections() async throws {
            try await MeshLab.with { mesh in
                let address = mesh.far.v4
                let port = "\(MeshLab.port)"
                // The client's own kernel runs out of ports on a quick machine: 28,000 for one destination in the minute
                // that TIME_WAIT lasts, mesh or not.
                try await mesh.lab.check(Launch("sysctl", ["-q", "-w", "net.ipv4.tcp_tw_reuse=1"], in: mesh.client))
                // Pooled sessions and the blocks of the first burst are there before the count.
                let warm = try await mesh.traffic("short", address, port, "256", "64", from: mesh.client)
                #expect(warm.ok, "\(warm)")
                let before = try [mesh.descriptors(1), mesh.descriptors(2)]

                let open = try mesh.background("open", address, port, "2000", from: mesh.client)
                #expect(try await open.line("\"event\": \"open\"").number("count") == 2000)
                #expect(try mesh.descriptors(1) >= 2000 && mesh.descriptors(2) >= 2000, "they are not all open")
                try open.release()
                let all = try await open.line("\"ok\"")
                #expect(all.ok, "\(all)")

                for parallel in ["1", "64"] {
                    let short = try await mesh.traffic(
                        "short", address, port, "20000", parallel, from: mesh.client, within: .seconds(240))
                    #expect(short.ok && short.number("done") == 20_000, "\(parallel) at a time: \(short)")
                }
                // What stays is the pool: 2,000 streams need 20 sessions a direction at 100 each, kept for minutes. A
                // leak of one in a thousand connections would show.
                for number in [1, 2] {
                    try await until("the descriptors of node-\(number)", within: MeshLab.patience) {
                        try mesh.descriptors(number) <= before[number - 1] + 28
                    }
                }
            }
        }

        @Test("a reader that does not read costs bounded memory and gets every byte", arguments: ["far", "near"])
        func slowReader(server: String) async throws {
            try await MeshLab.with { mesh in
                let host = server == "far" ? mesh.far : mesh.near
                let port = "\(MeshLab.port)"
                let warm = try await mesh.traffic("transfer", host.v4, port, "\(8 << 20)", from: mesh.client)
                #expect(warm.ok, "\(warm)")
                let before = try [mesh.memory(1), mesh.memory(2)]
                let count = 256 << 20
                let readers = try (0..<4).map { _ in
                    try mesh.background("slow", host.v4, port, "\(count)", from: mesh.client)
                }
                for reader in readers { _ = try await reader.line("asked") }
                // Stalled: what the proxies and the kernel hold no longer grows.
                var last = [0, 0]
                var calm = 0
                try await until("a stall", within: MeshLab.patience) {
                    let now = try [mesh.memory(1), mesh.memory(2)]
                    calm = now == last ? calm + 1 : 0
                    last = now
                    return calm > 20
                }
                // Four streams may hold a megabyte each in each proxy; 32 MiB leaves room for what malloc rounds up, and
                // none for a gigabyte.
                for number in [1, 2] {
                    let grown = try mesh.memory(number) - before[number - 1]
                    #expect(grown < 32 << 20, "node-\(number) grew by \(grown) bytes")
                }
                for reader in readers { try reader.release() }
                for reader in readers {
                    let verdict = try await reader.line("\"ok\"")
                    #expect(verdict.ok && verdict.number("received") == count, "\(verdict)")
                }
            }
        }
    }
}
