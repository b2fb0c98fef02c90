import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// Peers that break rules, against the 15008 of a running node: each gets its reaction and its line in the access log,
    /// and everybody else is served as before.
    @Suite(.serialized)
    struct HostileTests {
        private static let limits = """
            {handshakeTimeout: 3s, firstRequestTimeout: 3s, handshakesInFlightPerCore: 200, connectTimeout: 5s}
            """
        private static let good = "spiffe://cluster.local/ns/default/sa/visitor"

        @Test(.timeLimit(.minutes(3)))
        func `a handshake that is not right`() async throws {
            try await PeersMesh.with(limits: Self.limits) { mesh in
                let visitor = try await mesh.issue("visitor", uri: Self.good)
                let attempts: [Attempt] = [
                    Attempt("garbage", ["garbage", mesh.server.v4], "tls_failure"),
                    Attempt("silence", ["silent", mesh.server.v4], "handshake_timeout"),
                    Attempt("no request", ["mute", mesh.server.v6] + visitor.options, "request_timeout"),
                    Attempt("TLS 1.2", connect(mesh, visitor.options + ["--tls12"]), "tls_failure"),
                    Attempt("no ALPN", connect(mesh, visitor.options + ["--no-alpn"]), "tls_failure"),
                    Attempt("no certificate", connect(mesh, []), "tls_failure"),
                    Attempt(
                        "another trust domain",
                        connect(
                            mesh, try await mesh.issue("elsewhere", uri: "spiffe://example.org/ns/default/sa/a").options
                        ),
                        "peer_identity"),
                    Attempt(
                        "expired", connect(mesh, try await mesh.issue("old", uri: Self.good, expired: true).options),
                        "tls_failure"),
                    Attempt(
                        "self-signed",
                        connect(mesh, try await mesh.issue("own", uri: Self.good, selfSigned: true).options),
                        "tls_failure"),
                    Attempt(
                        "no SPIFFE URI", connect(mesh, try await mesh.issue("dns", uri: nil).options), "peer_identity"),
                ]
                for attempt in attempts { try await expect(attempt, visitor, mesh) }

                let before = mesh.proxy.log.end
                let dribble = try await mesh.tool("hostile", ["dribble", mesh.server.v4], in: mesh.foreign)
                #expect(!dribble.says("ended", "never"), "\(dribble.text)")
                _ = try await mesh.proxy.log.waitForLine(
                    containing: ["reason=\"handshake_timeout\""], after: before, within: .seconds(60))
                try await expectService(visitor, mesh, after: "a dribbled handshake")
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func `a request that is not right`() async throws {
            try await PeersMesh.with(limits: Self.limits) { mesh in
                let visitor = try await mesh.issue("visitor", uri: Self.good)
                var attempts: [Attempt] = [
                    Attempt("no :authority", connect(mesh, visitor.options + ["--no-authority"]), "bad_authority"),
                    Attempt("not CONNECT", connect(mesh, visitor.options + ["--method", "GET"]), "bad_authority"),
                    Attempt(
                        "16 KiB of headers", connect(mesh, visitor.options + ["--header-bytes", "40000"]),
                        "headers_too_large", status: 431),
                ]
                for authority in [
                    "nonsense", "\(mesh.server.v4)", "\(mesh.server.v4):99999", "[\(mesh.server.v6):80", ":",
                ] {
                    attempts.append(
                        Attempt(
                            "authority \(authority)", connect(mesh, visitor.options, to: authority), "bad_authority"))
                }
                let foreignAddress = "\(mesh.client.v4):\(PeersMesh.applicationPort)"
                attempts.append(
                    Attempt(
                        "another's address", connect(mesh, visitor.options, to: foreignAddress), "bad_authority",
                        status: 400))
                for port in [15001, 15006, 15008] {
                    attempts.append(
                        Attempt(
                            "our own port \(port)", connect(mesh, visitor.options, to: "\(mesh.server.v4):\(port)"),
                            "recursive_call", status: 503))
                }
                for attempt in attempts { try await expect(attempt, visitor, mesh) }

                // Past the kernel's capture: straight to the listeners.
                for port in ["15001", "15006"] {
                    let raw = try await mesh.tool("hostile", ["raw", mesh.server.v4, port], in: mesh.foreign)
                    #expect(!raw.says("ended", "never"), "port \(port): \(raw.text)")
                }
                try await expectService(visitor, mesh, after: "connections to our own ports")
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func `too much of everything`() async throws {
            try await PeersMesh.with(limits: Self.limits) { mesh in
                let visitor = try await mesh.issue("visitor", uri: Self.good)
                let authority = "\(mesh.server.v4):\(PeersMesh.applicationPort)"
                // Both cores open what they keep for good on their first connections.
                let warmUp = visitor.options + ["phases", mesh.server.v4, authority, "64"]
                #expect(try await mesh.tool("hostile", warmUp, in: mesh.foreign).ok == true)
                try await expectService(visitor, mesh, after: "warming up")
                let idle = try await mesh.settledDescriptors()
                for kind in ["ping", "settings", "reset", "continuation", "window", "empty"] {
                    let before = mesh.proxy.log.end
                    let verdict = try await mesh.tool(
                        "hostile", visitor.options + ["flood", kind, mesh.server.v4, authority], in: mesh.foreign)
                    #expect(!verdict.says("ended", "never"), "\(kind): \(verdict.text)")
                    let line = try await mesh.proxy.log.waitForLine(
                        containing: ["reason=\"protocol_error\"", Self.good], after: before, within: .seconds(60))
                    #expect(line.contains("connection failed"), "\(kind): \(line)")
                    try await expectService(visitor, mesh, after: "a flood of \(kind)")
                }

                let before = mesh.proxy.log.end
                let halfOpen = try await mesh.tool(
                    "hostile", visitor.options + ["halfopen", mesh.server.v4, authority, "3000"], in: mesh.foreign)
                #expect(halfOpen.ok == true, "\(halfOpen.text)")
                for reason in ["limit_reached", "handshake_timeout"] {
                    _ = try await mesh.proxy.log.waitForLine(
                        containing: ["reason=\"\(reason)\""], after: before, within: .seconds(60))
                }
                try await expectService(visitor, mesh, after: "3000 half-open connections")

                let seed = Int.random(in: 0...999_999)
                print("HostileTests: fuzz seed \(seed)")
                let fuzz = try await mesh.tool(
                    "hostile", visitor.options + ["fuzz", mesh.server.v4, authority, "\(seed)", "300"], in: mesh.foreign
                )
                #expect(fuzz.ok == true, "seed \(seed): \(fuzz.text)")
                try await expectService(visitor, mesh, after: "fuzz with seed \(seed)")

                let phases = try await mesh.tool(
                    "hostile", visitor.options + ["phases", mesh.server.v4, authority, "400"], in: mesh.foreign)
                #expect(phases.ok == true, "\(phases.text)")
                try await expectService(visitor, mesh, after: "aborts in every phase")
                do {
                    try await until("no descriptor is left of all that", within: .seconds(60)) {
                        mesh.openDescriptors.count <= idle.count
                    }
                } catch {
                    let left = mesh.openDescriptors
                    Issue.record("\(error): \(idle.count) before, now \(left.count): \(left)")
                }
            }
        }

        // MARK: Helpers

        /// One bad peer: the words for hbone.py and what the access log must say of it.
        private struct Attempt: Sendable {
            let name: String
            let words: [String]
            let reason: String
            /// What it is answered; nil: any refusal.
            let status: Int?

            init(_ name: String, _ words: [String], _ reason: String, status: Int? = nil) {
                self.name = name
                self.words = words
                self.reason = reason
                self.status = status
            }
        }

        private func connect(_ mesh: PeersMesh, _ options: [String], to authority: String? = nil) -> [String] {
            ["connect", mesh.server.v4, authority ?? "\(mesh.server.v4):\(PeersMesh.applicationPort)"] + options
        }

        private func expect(_ attempt: Attempt, _ visitor: PeersMesh.Credentials, _ mesh: PeersMesh) async throws {
            let before = mesh.proxy.log.end
            let verdict = try await mesh.tool("hbone", attempt.words, in: mesh.foreign)
            #expect(!verdict.says("ended", "never"), "\(attempt.name): \(verdict.text)")
            #expect(verdict.status != 200, "\(attempt.name): \(verdict.text)")
            if let status = attempt.status { #expect(verdict.status == status, "\(attempt.name): \(verdict.text)") }
            do {
                _ = try await mesh.proxy.log.waitForLine(
                    containing: ["reason=\"\(attempt.reason)\""], after: before,
                    within: .seconds(20))
            } catch {
                let lines = mesh.proxy.log.lines(after: before).joined(separator: "\n")
                Issue.record("\(attempt.name): no line with \(attempt.reason) for \(verdict.text):\n\(lines)")
            }
            try await expectService(visitor, mesh, after: attempt.name)
        }

        /// A peer of good behaviour gets its echo.
        private func expectService(_ visitor: PeersMesh.Credentials, _ mesh: PeersMesh, after what: String) async throws
        {
            let verdict = try await mesh.tool("hbone", connect(mesh, visitor.options), in: mesh.foreign)
            #expect(
                verdict.status == 200 && verdict.says("data", "hello through the tunnel"), "\(what): \(verdict.text)")
        }
    }
}
