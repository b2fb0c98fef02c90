import MeshModel
import MeshTestKit

extension DemoStep {
    static let failureSteps = [callersProxy, serversProxy]

    private static let callersProxy = DemoStep(
        id: "kill-client-proxy", title: "kill -9 of the caller's node proxy",
        proves: "workloads get refusals at once, no hangs and no clear text, and work again when the proxy is back"
    ) { mesh, evidence in
        try await kill(mesh.lab.nodes[0], mesh, &evidence) { evidence in
            let pod = mesh.shop.host
            for url in DemoConfiguration.shop.urls + ["http://\(pod.v4):8080", "http://[\(pod.v6)]:8080"] {
                let answer = try await mesh.lab.curl("\(url)/\(mesh.marker)", in: mesh.client)
                evidence.expect(answer.isRefused(within: .seconds(2)), "curl \(url): \(answer.summary)")
            }
            let inbound = try await mesh.lab.curl(
                "http://\(mesh.reviewsV2.host.v4):8080/inbound", in: mesh.plainB, within: .seconds(3))
            evidence.expect(
                inbound.code == 0,
                "in clear text from outside the mesh into a workload of this node: \(inbound.summary)")
        }
    }

    private static let serversProxy = DemoStep(
        id: "kill-server-proxy", title: "kill -9 of the server's node proxy",
        proves: "the same from the other side: the caller is told soon, and nothing goes around the dead proxy"
    ) { mesh, evidence in
        try await kill(mesh.lab.nodes[1], mesh, &evidence) { evidence in
            for url in DemoConfiguration.shop.urls {
                let answer = try await mesh.lab.curl("\(url)/\(mesh.marker)", in: mesh.client)
                evidence.expect(answer.isRefused(within: .seconds(3)), "curl \(url): \(answer.summary)")
            }
        }
    }

    /// Kills a node's proxy under a running download, looks at callers and the wire, and brings it back.
    private static func kill(
        _ node: LabHost, _ mesh: DemoMesh, _ evidence: inout Evidence,
        _ look: (inout Evidence) async throws -> Void
    ) async throws {
        let clock = ContinuousClock()
        let url = DemoConfiguration.shop.urls[0]
        let download = try await mesh.startDownload(from: url)
        let seen = mesh.shop.requests(containing: mesh.marker)
        let capture = try mesh.lab.capture(markers: [mesh.marker])
        let killed = clock.now
        try await mesh.proxies[node.nodeNumber - 1].killHard()
        // Later steps need the proxy, whatever is found here.
        do {
            try await look(&evidence)
        } catch {
            evidence.expect(false, "\(error)")
        }
        let status = try? await download.exit(within: .seconds(30))
        let ended = killed.duration(to: clock.now).milliseconds
        evidence.expect(
            status.map { !$0.isSuccess } ?? false,
            status.map { "the running download ended (\($0)) within \(ended) ms" } ?? "the running download hangs")
        if status == nil { try await download.killHard() }
        evidence.expect(mesh.shop.requests(containing: mesh.marker) == seen, "nginx saw no request meanwhile")

        let report = try await capture.report()
        let meshed = Set([mesh.client, mesh.shop.host].flatMap { [$0.v4, $0.v6] })
        let clear = report.outsideTunnels().filter {
            meshed.contains($0.client.ip.description) || meshed.contains($0.server.ip.description)
        }
        evidence.expect(
            report.markerHits.isEmpty && clear.isEmpty && report.lostFrames == 0,
            "no clear text between the nodes, in \(report.frames) frames"
                + report.markerHits.map { "; but \($0.place)" }.joined() + clear.map { "; but \($0)" }.joined())
        try await capture.stop()

        let restarted = clock.now
        try await mesh.restartProxy(node)
        let ready = restarted.duration(to: clock.now)
        try await until("the client is served again", within: .seconds(15)) {
            try await mesh.lab.curl("\(url)/back", in: mesh.client).code == 200
        }
        let served = restarted.duration(to: clock.now)
        evidence.expect(
            true,
            "proxy started again: ready after \(ready.milliseconds) ms, client served after \(served.milliseconds) ms")
    }
}
