import MeshTestKit

extension DemoStep {
    static let wireSteps = [wire, identities]

    private static let wire = DemoStep(
        id: "wire", title: "What passes between the nodes",
        proves:
            "nothing but TLS 1.3 records leaves a node: a secret in URL, header, page and redis value is never readable"
    ) { mesh, evidence in
        for url in DemoConfiguration.shop.urls + DemoConfiguration.reviews.urls {
            let answer = try await mesh.lab.curl(
                "\(url)/\(mesh.marker)", in: mesh.client, options: ["--header", "x-secret: \(mesh.marker)"])
            evidence.expect(answer.code == 200, "curl \(url)/<secret>: \(answer.summary)")
        }
        let set = try await mesh.lab.run(
            Launch("redis-cli", ["-h", DemoConfiguration.cache.v4, "set", "secret", mesh.marker], in: mesh.client))
        evidence.expect(set.text == "OK", "redis-cli set secret <secret>: \(set.summary)")

        let report = try await mesh.capture.report()
        let tunnels = report.tunnels()
        let strange = tunnels.filter { flow in
            if case .tls13 = flow.security { return false }
            return true
        }
        evidence.expect(
            !tunnels.isEmpty && strange.isEmpty,
            "\(tunnels.count) connections to port 15008, each with a ServerHello that chose TLS 1.3 and protected"
                + " records only" + strange.map { "; not so: \($0)" }.joined())
        for flow in tunnels.prefix(3) { evidence.remark("\(flow)") }
        let outside = report.outsideTunnels()
        evidence.expect(
            outside.isEmpty,
            "no other TCP connection carried a byte" + outside.map { "; but \($0): \($0.beginning)" }.joined())
        evidence.expect(
            report.otherFrames.isEmpty,
            "no other protocol either, in \(report.frames) frames \(report.otherFrames.summary)")
        evidence.expect(
            report.markerHits.isEmpty,
            "the secret was never readable" + report.markerHits.map { "; but in \($0.place)" }.joined())
        evidence.expect(report.isComplete, "the capture missed nothing (\(report.lostFrames) frames lost)")
        try await control(mesh, &evidence)
    }

    /// The same secret between two pods outside the mesh: a capture that finds nothing there proves nothing above.
    private static func control(_ mesh: DemoMesh, _ evidence: inout Evidence) async throws {
        let capture = try mesh.lab.capture(markers: [mesh.marker])
        for address in [mesh.plainB.v4, "[\(mesh.plainB.v6)]"] {
            _ = try await mesh.lab.curl("http://\(address):8080/\(mesh.marker)", in: mesh.plainA)
        }
        let report = try await capture.report()
        try await capture.stop()
        let hits = report.markerHits.filter { $0.place.contains(":8080") }
        let flows = report.outsideTunnels()
        evidence.expect(
            hits.count == 4 && flows.count == 2,
            "cross-check: between two pods outside the mesh the same capture reads the secret"
                + " (\(hits.count) of 4 streams; \(flows.first?.beginning ?? "nothing"))")
    }

    private static let identities = DemoStep(
        id: "identities", title: "Who talked to whom",
        proves: "both nodes log both SPIFFE identities, taken from the certificates of the connection"
    ) { mesh, evidence in
        let marks = mesh.proxies.map(\.log.end)
        let answer = try await mesh.lab.curl("\(DemoConfiguration.shop.urls[0])/who", in: mesh.client)
        evidence.expect(answer.code == 200, "curl from client to shop: \(answer.summary)")
        let words = [DemoConfiguration.identity("client"), DemoConfiguration.identity("shop")]
        for (proxy, mark) in zip(mesh.proxies, marks) {
            let line = try? await proxy.log.waitForLine(containing: words, after: mark, within: .seconds(5))
            evidence.expect(line != nil, "\(proxy.name): \(line ?? "no line with both identities")")
        }
    }
}

extension [UInt8: Int] {
    /// IP protocol numbers and how many frames of each.
    var summary: String {
        isEmpty
            ? ""
            : "(" + sorted { $0.key < $1.key }.map { "protocol \($0.key): \($0.value)" }.joined(separator: ", ") + ")"
    }
}
