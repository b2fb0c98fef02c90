import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    @Suite("Waypoint", .serialized)
    struct WaypointTests {
        private typealias Question = WaypointLab.Question

        @Test("routes choose the backend, edit headers and answer what cannot be sent on")
        func routing() async throws {
            try await WaypointLab.with { waypoint in
                let expected: [(question: Question, status: Int, backend: String)] = [
                    (Question("/exact"), 200, "alpha"), (Question("/exact/more"), 404, ""),
                    (Question("/a"), 200, "beta"), (Question("/a/"), 200, "beta"),
                    (Question("/a/x?y=/ab"), 200, "beta"),
                    (Question("/ab"), 404, ""),
                    (Question("/h", ["X-Version", "two"]), 200, "beta"),
                    (Question("/h", ["x-version", "2"]), 200, "alpha"),
                    (Question("/h"), 200, "alpha"),
                    (Question("/m", method: "POST"), 200, "beta"), (Question("/m"), 404, ""),
                    // The longer prefix, though of the later route; the first route where nothing else decides.
                    (Question("/a/deep/er"), 200, "alpha"), (Question("/tie"), 200, "alpha"),
                    (Question("/nothing"), 404, ""), (Question("/ghost"), 500, ""), (Question("/empty"), 503, ""),
                ]
                for address in [WaypointLab.shop, WaypointLab.shopV6] {
                    let answers = try await waypoint.ask(expected.map(\.question), at: address)
                    for (wanted, answer) in zip(expected, answers) {
                        #expect(
                            answer.status == wanted.status && answer.backend == wanted.backend,
                            "\(wanted.question.path) at \(address): \(answer)")
                    }
                }
                let reasons = try await waypoint.ask(["/nothing", "/ghost", "/empty"].map { Question($0) }).map(\.text)
                #expect(reasons == ["route_not_found", "no_backend", "no_healthy_upstream"], "\(reasons)")

                let edited = try await waypoint.ask([
                    Question(
                        "/edit", ["x-set", "old"], ["x-set", "older"], ["x-add", "one"], ["X-Gone", "1"],
                        ["x-kept", "2"])
                ])[0]
                #expect(edited.values("x-set") == ["new"], "\(edited)")
                let added = edited.values("x-add").joined(separator: ",").split(separator: ",")
                #expect(added == ["one", "more"], "\(edited)")
                #expect(edited.values("x-gone").isEmpty && edited.values("x-kept") == ["2"], "\(edited)")
                #expect(edited.values("host") == ["shop.example"], "\(edited)")

                let all = try await waypoint.mesh.http(
                    "keep", WaypointLab.shop, "80", "/all", "60", from: waypoint.mesh.client)
                #expect(all.ok && all.number("alpha") == 60, "\(all)")
                let half = try await waypoint.mesh.http(
                    "keep", WaypointLab.shop, "80", "/half", "200", from: waypoint.mesh.client)
                #expect(half.ok && (55...145).contains(half.number("alpha")), "\(half)")
                #expect(half.number("alpha") + half.number("beta") == 200, "\(half)")

                let alone = try await waypoint.ask("/any", at: WaypointLab.alone)
                #expect(alone.status == 200 && alone.backend == "alpha" && alone.cameThroughWaypoint, "\(alone)")
            }
        }

        @Test("a changed route serves the next request of an open connection; log and metrics tell what was served")
        func liveRoutes() async throws {
            try await WaypointLab.with { waypoint in
                let mesh = waypoint.mesh
                let end = try waypoint.running.log.end
                #expect(try await waypoint.ask("/exact").backend == "alpha")
                let line = try await waypoint.logged("request complete", #"path="/exact""#, after: end)
                for word in [
                    #"method="GET""#, "status=200", #"route="default/first""#, #"reason="-""#,
                    #"dst.service="alpha.default.svc.cluster.local""#,
                    "spiffe://cluster.local/ns/default/sa/client",
                ] {
                    #expect(line.contains(word), "\(word): \(line)")
                }
                _ = try await waypoint.ask("/nothing")
                let missed = try await waypoint.logged(#"path="/nothing""#, after: end)
                #expect(missed.contains("status=404") && missed.contains(#"reason="route_not_found""#), "\(missed)")

                let metrics = try await mesh.lab.curl("http://127.0.0.1:15020/metrics", in: waypoint.host).body
                let counted = metrics.split(separator: "\n").filter { $0.hasPrefix("istio_requests_total{") }
                for words in [
                    ["response_code=\"200\"", "destination_service_name=\"alpha\""], ["response_code=\"404\""],
                ] {
                    let line = counted.first { line in words.allSatisfy { line.contains($0) } }
                    #expect(
                        line?.hasSuffix(" 1") == true && line?.contains("reporter=\"waypoint\"") == true, "\(counted)")
                }

                let gate = "\(mesh.lab.folder)/gate"
                let open = try mesh.startHTTP(
                    "begin", WaypointLab.shop, "80", "/a?down=200000&gate=\(gate)", from: mesh.client)
                _ = try await open.log.waitForLine(containing: ["begun"], within: MeshLab.patience)
                let kept = try mesh.startHTTP("twice", WaypointLab.shop, "80", "/a", gate, from: mesh.client)
                let first = try await kept.log.waitForLine(containing: ["first"], within: MeshLab.patience)
                #expect(MeshLab.Verdict(first).text("backend") == "beta", "\(first)")
                let changed = WaypointLab.route(
                    "first", WaypointLab.rule(WaypointLab.prefix("/a"), "name: alpha, port: 80"))
                let before = try String(contentsOfFile: "\(mesh.lab.folder)/config/waypoint.yaml", encoding: .utf8)
                let services = before.components(
                    separatedBy: "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute")[0]
                try await waypoint.apply("waypoint", services + changed)
                #expect(try await waypoint.ask("/a").backend == "alpha")
                #expect(try await waypoint.ask("/exact").status == 404)
                // What was under way goes on with the backend that it has.
                #expect(FileManager.default.createFile(atPath: gate, contents: nil))
                let last = try await open.log.waitForLine(containing: ["\"ok\""], within: MeshLab.patience)
                #expect(MeshLab.Verdict(last).ok, "\(last)")
                let second = try await kept.log.waitForLine(containing: ["second"], within: MeshLab.patience)
                #expect(MeshLab.Verdict(second).text("backend") == "alpha", "\(second)")
            }
        }

        @Test("messages pass whole: persistent, pipelined, chunked, large, HEAD, 100-continue")
        func messages() async throws {
            try await WaypointLab.with { waypoint in
                let mesh = waypoint.mesh
                for address in [WaypointLab.shop, WaypointLab.shopV6] {
                    let verdicts = [
                        try await mesh.http("keep", address, "80", "/a", "300", from: mesh.client),
                        try await mesh.http("pipeline", address, "80", "/a", "40", from: mesh.client),
                        try await mesh.http("chunked", address, "80", "/a", from: mesh.client),
                        try await mesh.http("bulk", address, "80", "/a", "\(10 << 20)", from: mesh.client),
                        try await mesh.http("head", address, "80", "/a", from: mesh.client),
                        try await mesh.http("expect", address, "80", "/a", from: mesh.client),
                    ]
                    for verdict in verdicts { #expect(verdict.ok, "\(address): \(verdict)") }
                }
            }
        }

        @Test("a message whose end is disputed is answered 400, and what it hides reaches no backend")
        func smuggling() async throws {
            try await WaypointLab.with { waypoint in
                let mesh = waypoint.mesh
                let verdict = try await mesh.http("smuggle", WaypointLab.shop, "80", "/a/disputed", from: mesh.client)
                #expect(verdict.ok && verdict.number("count") == 20, "\(verdict)")
                // The same through a service without routes.
                let alone = try await mesh.http("smuggle", WaypointLab.alone, "80", "/disputed", from: mesh.client)
                #expect(alone.ok, "\(alone)")
                #expect(!waypoint.wasAsked("smuggled"))
                #expect(!waypoint.wasAsked("disputed"), "a head that is disputed stays here")
                #expect(try await waypoint.ask("/a/after").backend == "beta")
                #expect(waypoint.wasAsked("/a/after"), "the servers' logs are what is looked at")
            }
        }

        @Test("the backend learns who called, and nobody can say it in the caller's place")
        func forwardedIdentity() async throws {
            try await WaypointLab.with { waypoint in
                let forged = "By=spiffe://cluster.local/ns/x/sa/y;URI=spiffe://cluster.local/ns/default/sa/admin"
                for (caller, name) in [
                    (waypoint.mesh.client, "default/sa/client"), (waypoint.mesh.other, "shop/sa/other"),
                ] {
                    let answer = try await waypoint.ask(
                        [Question("/a", ["X-Forwarded-Client-Cert", forged], ["x-forwarded-client-cert", forged])],
                        from: caller)[0]
                    let seen = answer.values("x-forwarded-client-cert")
                    #expect(
                        seen == [
                            "By=spiffe://cluster.local/ns/default/sa/waypoint;URI=spiffe://cluster.local/ns/\(name)"
                        ], "\(answer)")
                }
            }
        }

        @Test("labels bind services, and one of them unbinds; ports that are not HTTP are carried as bytes")
        func binding() async throws {
            try await WaypointLab.with { waypoint in
                let mesh = waypoint.mesh
                let inherits = try await waypoint.ask("/x", at: WaypointLab.inherits)
                #expect(inherits.backend == "late" && inherits.cameThroughWaypoint, "\(inherits)")
                let exempt = try await waypoint.ask("/x", at: WaypointLab.exempt)
                #expect(exempt.backend == "late" && !exempt.cameThroughWaypoint, "\(exempt)")

                let end = try waypoint.running.log.end
                for address in [WaypointLab.shop, WaypointLab.shopV6] {
                    let bytes = try await mesh.traffic("transfer", address, "9090", "3000000", from: mesh.client)
                    #expect(bytes.ok, "\(address): \(bytes)")
                }
                let line = try await waypoint.logged(
                    "connection complete", #"dst.service="shop."#, #":9090""#, after: end)
                #expect(!line.contains("method="), "\(line)")
                let unknown = try await mesh.probe(WaypointLab.shop, port: 81, from: mesh.client)
                #expect(!["ok", "timeout"].contains(unknown.outcome), "\(unknown)")
            }
        }

        @Test("a policy of the service is enforced at the waypoint, also against connections that are open")
        func policy() async throws {
            try await WaypointLab.with { waypoint in
                let mesh = waypoint.mesh
                try await waypoint.apply("policy", WaypointLab.policy("ALLOW", callers: ["client"]))
                #expect(try await waypoint.ask("/a").status == 200)
                let end = try waypoint.running.log.end
                let refused = try await waypoint.ask("/a/refused", from: mesh.other)
                #expect(refused.status == 0 && refused.end != "timeout", "\(refused)")
                let line = try await waypoint.logged(#"reason="policy_no_allow""#, after: end)
                #expect(line.contains("ns/shop/sa/other"), "\(line)")
                #expect(!waypoint.wasAsked("/a/refused"))

                // Bytes and HTTP alike, idle and in the middle of a response.
                let idle = try mesh.startHTTP("hold", WaypointLab.shop, "80", "/a", from: mesh.client)
                _ = try await idle.log.waitForLine(containing: ["first"], within: MeshLab.patience)
                let busy = try mesh.startHTTP(
                    "begin", WaypointLab.shop, "80", "/a/busy?down=200000&gate=/nonexistent", from: mesh.client)
                _ = try await busy.log.waitForLine(containing: ["begun"], within: MeshLab.patience)
                let before = try waypoint.running.log.end
                try await waypoint.apply("policy", WaypointLab.policy("DENY", callers: ["client"]))
                let ended = try await idle.log.waitForLine(containing: ["ended"], within: MeshLab.patience)
                #expect(["closed", "reset"].contains(MeshLab.Verdict(ended).text("ended")), "\(ended)")
                #expect(try await busy.exit(within: MeshLab.patience) != .exited(0), "its response was cut")
                let closed = try await waypoint.logged(#"reason="policy_changed""#, #"path="/a/busy"#, after: before)
                #expect(closed.contains("sa/client"), "\(closed)")

                let denied = try await waypoint.ask("/a")
                #expect(denied.status == 0 && denied.end != "timeout", "\(denied)")
                let why = try await waypoint.logged(#"reason="policy_deny""#, after: before)
                #expect(why.contains(#"policy="default/shop-callers""#), "\(why)")
                #expect(try await waypoint.ask("/a", from: mesh.other).status == 200)
                let bytes = try await mesh.probe(WaypointLab.shop, port: 9090, from: mesh.client)
                #expect(!["ok", "timeout"].contains(bytes.outcome), "\(bytes)")
            }
        }

        @Test("what cannot start says why; without a certificate it waits, refuses and says why")
        func start() async throws {
            try await WaypointLab.with(starts: false) { waypoint in
                let mesh = waypoint.mesh
                func run(_ arguments: [String]) async throws -> CommandResult {
                    try await mesh.lab.run(try waypoint.launch(arguments), within: MeshLab.patience)
                }
                let wrong = try await run(waypoint.arguments(gateway: "default/wrong"))
                #expect(wrong.status == .exited(1), "\(wrong)")
                #expect(wrong.errors.contains("no Workload is a waypoint of Gateway default/wrong"), "\(wrong)")
                let elsewhere = try await mesh.lab.run(
                    Launch(
                        try Daemons.path("culvert-waypoint"), waypoint.arguments(), in: mesh.other, user: "nobody"),
                    within: MeshLab.patience)
                #expect(elsewhere.status == .exited(1), "\(elsewhere)")
                #expect(elsewhere.errors.contains("start the waypoint where its Workload lives"), "\(elsewhere)")
                for bad in [
                    waypoint.arguments(gateway: "wrong"), ["--config", "/nonexistent"],
                    waypoint.arguments() + ["--cores", "0"],
                    waypoint.arguments() + ["--no-such-flag"], waypoint.arguments() + ["--log-format", "xml"],
                ] {
                    let result = try await run(bad)
                    #expect(result.status == .exited(2) && !result.errors.isEmpty, "\(bad): \(result)")
                }

                let socket = "\(mesh.lab.folder)/late.sock"
                let late = try waypoint.start(identitySocket: socket)
                let why = try await waypoint.logged("no certificate yet", socket)
                #expect(!why.isEmpty)
                let readiness = try await waypoint.readiness()
                #expect(readiness.code == 503 && readiness.body.contains("no certificate yet"), "\(readiness)")
                let end = mesh.nodes[0].log.end
                let refused = try await waypoint.ask("/a/early")
                #expect(refused.status == 0 && refused.end != "timeout", "\(refused)")
                let line = try await mesh.logged(1, [#"dst.service="shop."#, "reason="], after: end)
                #expect(!line.contains(#"reason="-""#), "\(line)")
                #expect(!waypoint.wasAsked("/a/early"))
                // The socket comes: nobody has to start it again.
                try FileManager.default.createSymbolicLink(
                    atPath: socket, withDestinationPath: waypoint.identitySocket)
                try await waypoint.waitUntilReady(late)
                #expect(try await waypoint.ask("/a").backend == "beta")
                #expect(late.user != 0)
            }
        }

        @Test("SIGTERM lets a response finish, takes nothing new, and ends with status 0")
        func drain() async throws {
            try await WaypointLab.with { waypoint in
                let mesh = waypoint.mesh
                let gate = "\(mesh.lab.folder)/gate"
                let open = try mesh.startHTTP(
                    "begin", WaypointLab.shop, "80", "/a?down=4000000&gate=\(gate)", from: mesh.client)
                _ = try await open.log.waitForLine(containing: ["begun"], within: MeshLab.patience)
                let idle = try mesh.startHTTP("hold", WaypointLab.shop, "80", "/a", from: mesh.client)
                _ = try await idle.log.waitForLine(containing: ["first"], within: MeshLab.patience)
                let process = try waypoint.running
                process.send(SIGTERM)
                // An idle connection is closed at once: the drain has begun.
                _ = try await idle.log.waitForLine(containing: ["ended"], within: MeshLab.patience)
                #expect(process.isRunning, "\(process.log.tail())")
                #expect(FileManager.default.createFile(atPath: gate, contents: nil))
                let last = try await open.log.waitForLine(containing: ["\"ok\""], within: MeshLab.patience)
                #expect(MeshLab.Verdict(last).ok, "\(last)")
                #expect(try await process.exit(within: MeshLab.patience) == .exited(0), "\(process.log.tail())")
                let after = try await waypoint.ask("/a")
                #expect(after.status == 0 && after.end != "timeout", "\(after)")
            }
        }
    }
}
