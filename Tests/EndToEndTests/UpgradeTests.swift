import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// A node proxy gives its place to another one while connections are made all the time (decision 6).
    @Suite("Upgrade", .serialized)
    struct UpgradeTests {
        /// Connections that do not stop: through the outbound listener of node-1 and the tunnel of node-2, the other way
        /// round, inside node-1, and in clear text to node-1; and questions to DNS servers.
        private struct Churn {
            let all: [MeshLab.Waiting]

            init(_ mesh: MeshLab, parallel: Int = 3) async throws {
                let port = "\(MeshLab.port)"
                try await mesh.serve(in: mesh.other)
                for host in [mesh.client, mesh.far, mesh.outside] {
                    // The clients' own kernel runs out of ports otherwise: 28,000 for one destination a minute.
                    try await mesh.lab.check(Launch("sysctl", ["-q", "-w", "net.ipv4.tcp_tw_reuse=1"], in: host))
                }
                let all = [
                    try mesh.background("churn", mesh.far.v4, port, "\(parallel)", from: mesh.client),
                    try mesh.background("churn", mesh.near.v4, port, "1", from: mesh.client),
                    try mesh.background("churn", mesh.near.v4, port, "\(parallel)", from: mesh.far),
                    try mesh.background("churn", mesh.near.v4, port, "1", from: mesh.outside),
                    // Nobody listens there: only the proxy can have answered.
                    try mesh.background(
                        "churn", mesh.plain.v4, "far.default.svc.cluster.local", MeshLab.virtual.far.v4,
                        from: mesh.client, script: "dns.py"),
                ]
                self.all = all
                for one in all { _ = try await one.line("\"running\"") }
            }

            /// Waits until every one has made so many connections more.
            func goOn(_ count: Int = 100) async throws {
                for one in all {
                    let word = "w\(UInt32.random(in: 0 ... .max))"
                    try one.tell(word)
                    let before = try await one.line("\"\(word)\"").number("done")
                    try await until("\(count) connections more", within: MeshLab.patience) {
                        let word = "w\(UInt32.random(in: 0 ... .max))"
                        try one.tell(word)
                        return try await one.line("\"\(word)\"").number("done") >= before + count
                    }
                }
            }

            /// Ends it: not one connection was refused, reset or left without its answer.
            /// - Parameter proxies: whose logs say more where one was.
            func end(
                _ proxies: [LabProcess] = [], location: SourceLocation = #_sourceLocation
            ) async throws -> [Int] {
                var counts: [Int] = []
                for one in all {
                    try one.tell("end")
                    let verdict = try await one.line("\"failed\"")
                    let why =
                        verdict.ok
                        ? []
                        : proxies.flatMap { proxy in
                            proxy.log.lines().filter { $0.contains("access") && !$0.contains("reason=\"-\"") }
                                .map { "\(proxy.name): \($0)" }
                        }
                    #expect(verdict.ok, "\(verdict)\n\(why.joined(separator: "\n"))", sourceLocation: location)
                    counts.append(verdict.number("done"))
                }
                return counts
            }
        }

        /// Starts another proxy of the node beside the one that runs.
        private func takeOver(
            _ mesh: MeshLab, _ number: Int, _ round: Int, cores: Int = 2, config: String? = nil
        ) throws -> (old: LabProcess, new: LabProcess) {
            let old = try mesh.forget(number)
            var more = ["--takeover", "--cores", "\(cores)"]
            if let config { more += ["--config", config] }
            return (old, try mesh.start(number, more: more, name: "proxy-\(number)-\(round)"))
        }

        private func metric(_ mesh: MeshLab, _ name: String) async throws -> Int {
            let text = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: mesh.lab.nodes[0]).body
            let line = text.split(separator: "\n").first { $0.hasPrefix("\(name) ") }
            return line.flatMap { $0.split(separator: " ").last }.flatMap { Int($0) } ?? -1
        }

        @Test("proxies of both nodes are replaced again and again, and no connection notices (P18, P23)")
        func handOver() async throws {
            try await MeshLab.with(settings: ["limits: {drain: 120s}", "acceleration: sockmap"]) { mesh in
                let port = "\(MeshLab.port)"
                let held = try mesh.background("open", mesh.far.v4, port, "50", from: mesh.client)
                _ = try await held.line("\"event\": \"open\"")
                // The kernel's own: none of the proxies carries them.
                let direct = try mesh.background("open", mesh.near.v4, port, "20", from: mesh.client)
                _ = try await direct.line("\"event\": \"open\"")
                #expect(try await metric(mesh, "culvert_direct_connections") == 20)
                let churn = try await Churn(mesh)
                var olds: [LabProcess] = []
                for (round, (number, cores)) in [(1, 1), (2, 3), (1, 3), (2, 1), (1, 2)].enumerated() {
                    let (old, new) = try takeOver(mesh, number, round, cores: cores)
                    _ = try await old.log.waitForLine(
                        containing: ["handed over to process \(new.pid)"], within: MeshLab.patience)
                    try await mesh.waitUntilReady(number)
                    try await churn.goOn()
                    #expect(try await metric(mesh, "culvert_direct_connections") >= 20)
                    olds.append(old)
                }
                // The first two carry connections that are still open; they wait for them.
                #expect(olds[0].isRunning && olds[1].isRunning)
                try held.release()
                let verdict = try await held.line("\"ok\"")
                #expect(verdict.ok, "connections from before the first hand-over: \(verdict)")
                for old in olds {
                    #expect(try await old.exit(within: MeshLab.patience) == .exited(0), "\(old.log.tail())")
                    #expect(old.log.line(containing: ["did not end in time"]) == nil)
                }
                for count in try await churn.end(olds + mesh.nodes) { #expect(count > 500) }
                try direct.release()
                let carried = try await direct.line("\"ok\"")
                #expect(carried.ok, "direct connections from before the first hand-over: \(carried)")
                try await until("the last proxy has their records", within: MeshLab.patience) {
                    try await metric(mesh, "culvert_direct_connections") == 0
                }
                if try await metric(mesh, "culvert_acceleration_available") == 1 {
                    #expect(try await metric(mesh, "culvert_accelerated_bytes_total") > 0)
                }
                // The last one is alone: only it may go around capture.
                _ = try await mesh.logged(1, ["this process has the node for itself"])
                try await mesh.apply("workloads", mesh.workloads(MeshLab.workload(mesh.late)))
                _ = try await mesh.logged(1, ["workload default/late is served"])
            }
        }

        @Test("the other levels hand over as well", arguments: ["L1", "L3"])
        func levels(level: String) async throws {
            try await MeshLab.with(settings: ["limits: {drain: 120s}"], level: level) { mesh in
                let held = try mesh.background("open", mesh.far.v4, "\(MeshLab.port)", "20", from: mesh.client)
                _ = try await held.line("\"event\": \"open\"")
                let churn = try await Churn(mesh, parallel: 1)
                for (round, number) in [1, 2, 1].enumerated() {
                    let (old, new) = try takeOver(mesh, number, round)
                    _ = try await old.log.waitForLine(
                        containing: ["handed over to process \(new.pid)"], within: MeshLab.patience)
                    try await mesh.waitUntilReady(number)
                    try await churn.goOn(50)
                }
                try held.release()
                let verdict = try await held.line("\"ok\"")
                #expect(verdict.ok, "\(verdict)")
                _ = try await churn.end()
            }
        }

        @Test("level L2 says that it cannot, and goes on")
        func levelOfOneProcess() async throws {
            try await MeshLab.with(nodes: [1], level: "L2") { mesh in
                let second = try await mesh.lab.run(
                    Launch(
                        try Daemons.path("culvert-node"), mesh.arguments(1) + ["--takeover"], in: mesh.lab.nodes[0]),
                    within: MeshLab.patience)
                let (pid, errors) = (try mesh.node(1).pid, second.errors)
                #expect(second.status == .exited(1), "\(second)")
                #expect(errors.contains("process \(pid) does not hand over: it captures at level L2"), "\(errors)")
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
            }
        }

        @Test("a proxy that cannot take everything over changes nothing, however it ends")
        func failedHandOver() async throws {
            try await MeshLab.with { mesh in
                // The new one looks for a workload in a namespace that is not the one the running proxy serves.
                let wrong = "\(mesh.lab.folder)/wrong"
                try FileManager.default.createDirectory(atPath: wrong, withIntermediateDirectories: true)
                for name in ["mesh", "services"] {
                    try FileManager.default.copyItem(
                        atPath: "\(mesh.lab.folder)/config/\(name).yaml", toPath: "\(wrong)/\(name).yaml")
                }
                let near = MeshLab.workload(mesh.near)
                let moved = MeshLab.workload(mesh.near, netns: "\(mesh.near.namespacePath)-none")
                try mesh.workloads().replacing(near, with: moved).write(
                    toFile: "\(wrong)/workloads.yaml", atomically: true, encoding: .utf8)
                let churn = try await Churn(mesh)
                for (round, signal) in [SIGKILL, SIGTERM, nil].enumerated() {
                    let (old, new) = try takeOver(mesh, 1, round, config: wrong)
                    // It has begun, and has the kernel's side already.
                    _ = try await new.log.waitForLine(
                        containing: ["workload default/near is not ready"], within: MeshLab.patience)
                    let asked = try await mesh.lab.run(
                        Launch(
                            try Daemons.path("culvert-node"), mesh.arguments(1) + ["--takeover"],
                            in: mesh.lab.nodes[0]),
                        within: MeshLab.patience)
                    #expect(asked.status == .exited(1) && asked.errors.contains("already runs"), "\(asked)")
                    try await churn.goOn()
                    let end = old.log.end
                    if let signal { new.send(signal) }
                    _ = try await old.log.waitForLine(
                        containing: ["this process has the node again"], after: end, within: MeshLab.patience)
                    let status = try await new.exit(within: MeshLab.patience)
                    switch signal {
                    case SIGKILL: break
                    case SIGTERM: #expect(status == .exited(0))
                    default:
                        // Its patience ended.
                        #expect(status == .exited(1))
                        #expect(new.log.line(containing: ["workload default/near:", "it goes on serving"]) != nil)
                    }
                    mesh.remember(1, old)
                    try await mesh.waitUntilReady(1)
                    try await churn.goOn()
                }
                // It writes kernel state again, and hands over to one that is right.
                try await mesh.apply("workloads", mesh.workloads(MeshLab.workload(mesh.late)))
                _ = try await mesh.logged(1, ["workload default/late is served"])
                let (old, _) = try takeOver(mesh, 1, 9)
                #expect(try await old.exit(within: MeshLab.patience) == .exited(0), "\(old.log.tail())")
                try await mesh.waitUntilReady(1)
                try await churn.goOn()
                _ = try await churn.end()
            }
        }

        @Test("with nobody to take over from it starts as usual; without the flag it is refused")
        func plain() async throws {
            try await MeshLab.with(nodes: [2]) { mesh in
                try mesh.start(1, more: ["--takeover"])
                try await mesh.waitUntilReady(1)
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
                let second = try await mesh.lab.run(
                    Launch(try Daemons.path("culvert-node"), mesh.arguments(1), in: mesh.lab.nodes[0]),
                    within: MeshLab.patience)
                let pid = try mesh.node(1).pid
                #expect(
                    second.status == .exited(1) && second.errors.contains("--takeover")
                        && second.errors.contains("process \(pid) already runs"), "\(second)")
                let other = try await mesh.lab.run(
                    Launch(
                        try Daemons.path("culvert-node"), mesh.arguments(1) + ["--takeover", "--capture-level", "L3"],
                        in: mesh.lab.nodes[0]),
                    within: MeshLab.patience)
                #expect(other.status == .exited(1) && other.errors.contains("keeps the level"), "\(other)")
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
                // Killed: the next one finds a socket file that nobody listens on.
                try await mesh.forget(1).killHard()
                try mesh.start(1, more: ["--takeover"])
                try await mesh.waitUntilReady(1)
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
            }
        }
    }
}
