import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// DNS of `client`, asked by real resolvers of real servers (dnsmasq) that are not in the mesh: `outside`, and
    /// `plain` as a second one.
    @Suite("DNS", .serialized)
    struct DNSTests {
        /// Those at which questions come to the proxy in another way each.
        private static let levels = ["L0", "L2", "L3"]

        @Test(
            "names of the mesh, by dig, by the C library with a search path, and by TCP", arguments: ["L0", "L3"])
        func meshNames(level: String) async throws {
            try await MeshLab.with(nodes: [1], level: level) { mesh in
                let server = try await upstream(mesh, in: mesh.outside, mark: 1)
                let far = MeshLab.virtual.far
                for name in ["far.default.svc.cluster.local", "far.default.svc", "far.default", "far", "FAR.default"] {
                    for more in [[], ["+tcp"], ["+noedns"]] {
                        let answer = try await dig(mesh, mesh.outside.v4, [name, "A"] + more)
                        #expect(answer.addresses == [far.v4] && answer.ttls == [30], "\(name) \(more): \(answer)")
                        #expect(answer.text.contains("SERVER: \(mesh.outside.v4)#53"), "\(answer)")
                    }
                }
                #expect(try await dig(mesh, mesh.outside.v4, ["far.default", "AAAA"]).addresses == [far.v6])
                #expect(try await dig(mesh, mesh.outside.v6, ["far.default", "A"]).addresses == [far.v4])
                // In full, so that the resolver's own list does the searching.
                for (words, expected) in [
                    ("ahostsv4 far", far.v4), ("ahostsv4 far.default", far.v4), ("ahostsv6 near", "fd96::20"),
                    ("ahostsv4 app.example.test", "198.51.100.1"),
                ] {
                    let found = try await getent(mesh, mesh.outside.v4, words)
                    #expect(found.contains("\(expected) "), "\(words): \(found)")
                }
                #expect(!server.log.all.contains("far.default.svc.cluster.local"), "nobody else was asked")
                // Known by another record only: the name exists. Unknown under the cluster's domain: upstream's word.
                let absent = try await dig(mesh, mesh.outside.v4, ["far.default.svc.cluster.local", "TXT"])
                #expect(absent.code == "NOERROR" && absent.addresses.isEmpty, "\(absent)")
                let unknown = try await dig(mesh, mesh.outside.v4, ["nosuch.default.svc.cluster.local", "A"])
                #expect(unknown.code == "NXDOMAIN", "\(unknown)")
                #expect(server.log.all.contains("nosuch.default.svc.cluster.local"))
                // The application goes where the name says.
                let verdict = try await mesh.probe(far.v4, port: 80, from: mesh.client)
                #expect(verdict.outcome != "timeout", "\(verdict)")
            }
        }

        @Test("every kind of socket sees the server it asked (P17), and nobody else is answered", arguments: levels)
        func sockets(level: String) async throws {
            try await MeshLab.with(nodes: [1], level: level) { mesh in
                try await upstream(mesh, in: mesh.outside, mark: 1)
                try await upstream(mesh, in: mesh.plain, mark: 2)
                let pairs = [mesh.outside.v4, mesh.plain.v4, mesh.outside.v6, mesh.plain.v6].flatMap {
                    [$0, "app.example.test"]
                }
                let verdict = try await dns(mesh, ["ask"] + pairs)
                #expect(verdict.ok, "\(verdict)")
                for (server, answer) in [
                    (mesh.outside.v4, 1), (mesh.plain.v4, 2), (mesh.outside.v6, 1), (mesh.plain.v6, 2),
                ] {
                    #expect(verdict.description.contains("\"\(server)\": \"198.51.100.\(answer)\""), "\(verdict)")
                }
                for address in [mesh.client.v4, mesh.client.v6] {
                    let stranger = try await mesh.lab.run(
                        Launch(
                            "dig",
                            ["@\(address)", "-p", "15053", "far.default.svc.cluster.local", "+tries=1", "+time=1"],
                            in: mesh.outside))
                    #expect(stranger.output.contains("timed out"), "\(stranger)")
                }
                let metrics = try await metrics(mesh)
                #expect(
                    metrics.contains("culvert_capture_events_total{event=\"dns_captured\"}") || level != "L0")
                #expect(metrics.contains("istio_dns_requests_total{request_query_type=\"A\",request_protocol=\"udp\""))
                #expect(metrics.contains("istio_dns_upstream_request_duration_seconds_count"))
            }
        }

        @Test("large answers come by TCP, kept ones with the TTL that is left, stale ones while upstream is down")
        func cache() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                let server = try await upstream(mesh, in: mesh.outside, mark: 1)
                let large = try await dig(mesh, mesh.outside.v4, ["big.example.test", "TXT"])
                #expect(large.text.contains("Truncated, retrying in TCP mode") && large.records == 60, "\(large)")
                #expect(large.text.contains("SERVER: \(mesh.outside.v4)#53"), "\(large)")
                #expect(try await dig(mesh, mesh.outside.v4, ["big.example.test", "TXT", "+tcp"]).records == 60)

                let first = try await dig(mesh, mesh.outside.v4, ["app.example.test", "A"])
                #expect(first.ttls == [600], "\(first)")
                try await until("the TTL counts down", within: .seconds(20)) {
                    let later = try await dig(mesh, mesh.outside.v4, ["app.example.test", "A"])
                    #expect(later.addresses == first.addresses && (570...600).contains(later.ttls.first ?? 0))
                    return later.ttls != [600]
                }
                let asked = server.log.all.components(separatedBy: "query[A] app.example.test").count - 1
                #expect(asked == 1, "\(server.log.all)")

                #expect(try await dig(mesh, mesh.outside.v4, ["brief.example.test", "A"]).ttls == [1])
                server.send(SIGKILL)
                _ = try await server.exit(within: .seconds(10))
                try await until("a stale answer", within: .seconds(30)) {
                    let stale = try await dig(mesh, mesh.outside.v4, ["brief.example.test", "A"])
                    #expect(stale.addresses == ["198.51.100.8"], "\(stale)")
                    return stale.ttls == [30]
                }
                let unknown = try await dig(mesh, mesh.outside.v4, ["new.example.test", "A"])
                #expect(unknown.code == "SERVFAIL", "\(unknown)")
                #expect(try await metrics(mesh).contains("source=\"stale\"} "))
                // It comes back, and what was stale is fresh again once upstreams may be asked.
                try await upstream(mesh, in: mesh.outside, mark: 1)
                #expect(try await dig(mesh, mesh.outside.v4, ["new.example.test", "A"]).code == "NXDOMAIN")
            }
        }

        @Test("an upstream that guesses is not believed")
        func hostile() async throws {
            try await MeshLab.with(nodes: [1]) { mesh in
                let server = try mesh.lab.spawn(
                    Launch(mesh.python, [MeshLab.tool("dns.py"), "hostile", "53"], in: mesh.outside), name: "hostile")
                try await mesh.lab.waitUntilUp(server, within: MeshLab.patience) {
                    server.log.line(containing: ["listening"]) != nil
                }
                for name in ["one.example.test", "two.example.test"] {
                    let answer = try await dig(mesh, mesh.outside.v4, [name, "A", "+noedns"])
                    #expect(answer.addresses == ["192.0.2.77"], "\(answer)")
                }
            }
        }

        @Test(
            "a dead daemon refuses at once, the next one answers; capture goes on and off by annotation and mesh",
            arguments: levels)
        func restartAndSwitch(level: String) async throws {
            try await MeshLab.with(nodes: [1], level: level) { mesh in
                try await upstream(mesh, in: mesh.outside, mark: 1)
                let name = ["far.default.svc.cluster.local", "A"]
                #expect(try await dig(mesh, mesh.outside.v4, name).addresses == [MeshLab.virtual.far.v4])
                try mesh.forget(1).send(SIGKILL)
                try await until("questions are refused", within: .seconds(20)) {
                    let refused = try await dig(mesh, mesh.outside.v4, name)
                    return refused.text.contains("connection refused") && refused.duration < .seconds(3)
                }
                try mesh.start(1)
                try await mesh.waitUntilReady(1)
                try await until("DNS is captured again", within: .seconds(20)) {
                    try await dig(mesh, mesh.outside.v4, name).addresses == [MeshLab.virtual.far.v4]
                }

                let annotated = mesh.workloads().replacingOccurrences(
                    of: "labels: {app: client}, annotations: {}",
                    with: "labels: {app: client}, annotations: {ambient.istio.io/dns-capture: \"false\"}")
                try await mesh.apply("workloads", annotated)
                try await until("DNS is not captured", within: .seconds(20)) {
                    try await dig(mesh, mesh.outside.v4, name).code == "NXDOMAIN"
                }
                #expect(try await dig(mesh, mesh.outside.v4, name + ["+tcp"]).code == "NXDOMAIN")
                try await mesh.apply("workloads", mesh.workloads())
                try await until("DNS is captured again", within: .seconds(20)) {
                    try await dig(mesh, mesh.outside.v4, name).addresses == [MeshLab.virtual.far.v4]
                }
                try await mesh.apply("mesh", mesh.meshObject(["dnsCapture: false"]))
                try await until("no DNS is captured", within: .seconds(20)) {
                    try await dig(mesh, mesh.outside.v4, name).code == "NXDOMAIN"
                }
            }
        }

        // MARK: Tools

        struct Answer: CustomStringConvertible {
            let text: String
            let duration: Duration
            let code: String
            /// Of the answer section: all records, and the A and AAAA ones.
            let records: Int
            let addresses: [String]
            let ttls: [Int]

            init(_ text: String, _ duration: Duration) {
                self.text = text
                self.duration = duration
                code = text.firstMatch(of: /status: ([A-Z]+)/).map { String($0.1) } ?? ""
                let lines = text.split(separator: "\n").filter { !$0.hasPrefix(";") }
                    .map { $0.split(whereSeparator: \.isWhitespace).map(String.init) }
                    .filter { $0.count >= 5 && $0[2] == "IN" }
                records = lines.count
                let found = lines.filter { ["A", "AAAA"].contains($0[3]) }
                addresses = found.map { $0[4] }
                ttls = found.compactMap { Int($0[1]) }
            }

            var description: String { text }
        }

        /// One question of `client`; dig itself asks once.
        private func dig(_ mesh: MeshLab, _ server: String, _ words: [String]) async throws -> Answer {
            let result = try await mesh.lab.run(
                Launch("dig", ["@\(server)"] + words + ["+tries=1", "+time=8"], in: mesh.client))
            return Answer(result.output + result.errors, result.duration)
        }

        /// The C library's resolver with the search path of a Kubernetes pod.
        private func getent(_ mesh: MeshLab, _ server: String, _ words: String) async throws -> String {
            let file = "\(mesh.lab.folder)/resolv.conf"
            let text = """
                nameserver \(server)
                search default.svc.cluster.local svc.cluster.local cluster.local
                options ndots:5

                """
            try text.write(toFile: file, atomically: true, encoding: .utf8)
            let line = "mount --bind \(file) /etc/resolv.conf && exec getent \(words)"
            return try await mesh.lab.run(Launch("unshare", ["-m", "sh", "-c", line], in: mesh.client)).output
        }

        private func dns(_ mesh: MeshLab, _ arguments: [String]) async throws -> MeshLab.Verdict {
            let output = try await mesh.lab.check(
                Launch(mesh.python, [MeshLab.tool("dns.py")] + arguments, in: mesh.client), within: MeshLab.patience)
            return MeshLab.Verdict(output)
        }

        private func metrics(_ mesh: MeshLab) async throws -> String {
            try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
        }

        /// A real server; `mark` is the last byte of its address for `app.example.test`.
        @discardableResult
        private func upstream(_ mesh: MeshLab, in host: LabHost, mark: Int) async throws -> LabProcess {
            let texts = (0..<60).map { "--txt-record=big.example.test,\($0)-\(String(repeating: "x", count: 120))" }
            let server = try mesh.lab.spawn(
                Launch(
                    "dnsmasq",
                    [
                        "--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--pid-file=",
                        "--user=root", "--log-queries", "--log-facility=-", "--local=/example.test/",
                        "--local=/cluster.local/", "--local=/svc/", "--local=/default/",
                        "--host-record=app.example.test,198.51.100.\(mark),600",
                        "--host-record=brief.example.test,198.51.100.8,1",
                    ] + texts, in: host), name: "dnsmasq-\(host.name)-\(UInt32.random(in: 0 ... .max))")
            try await mesh.lab.waitUntilUp(server, within: MeshLab.patience) {
                server.log.line(containing: ["started"]) != nil
            }
            return server
        }
    }
}

extension LogFile {
    fileprivate var all: String { lines().joined(separator: "\n") }
}
