import Foundation
import MeshTestKit

extension DemoStep {
    static let policySteps = [refusal, policyChange]

    private static let refusal = DemoStep(
        id: "refusal", title: "A caller whom no policy names",
        proves: "the same request from another identity is refused at once, with a named reason in the log"
    ) { mesh, evidence in
        for url in DemoConfiguration.shop.urls {
            let mark = mesh.proxies[1].log.end
            let page = "stranger-\(UInt32.random(in: 0 ... .max))"
            let answer = try await mesh.lab.curl("\(url)/\(page)", in: mesh.stranger)
            evidence.expect(answer.isRefused(within: .seconds(2)), "curl \(url) from stranger: \(answer.summary)")
            evidence.expect(mesh.shop.requests(containing: page) == 0, "nginx never saw it")
            let words = [DemoConfiguration.identity("stranger"), "policy_no_allow"]
            let line = try? await mesh.proxies[1].log.waitForLine(containing: words, after: mark, within: .seconds(5))
            evidence.expect(line != nil, "node-2: \(line ?? "no line with the identity and policy_no_allow")")
        }
        let answer = try await mesh.lab.curl("\(DemoConfiguration.shop.urls[0])/", in: mesh.client)
        evidence.expect(answer.code == 200, "the client, whom the policy names: \(answer.summary)")
    }

    private static let policyChange = DemoStep(
        id: "policy-change", title: "Policy changed while running",
        proves: "a DENY policy written to the file takes effect without restart, also for connections that are open"
    ) { mesh, evidence in
        let url = DemoConfiguration.shop.urls[0]
        let mark = mesh.proxies[1].log.end
        let download = try await mesh.startDownload(from: url)
        let clock = ContinuousClock()

        let denied = clock.now
        try mesh.configuration.write("policy.yaml", DemoConfiguration.policy(shutOut: true))
        var refusal: CurlAnswer?
        // Whatever happens, later steps find the policy they expect.
        defer { try? mesh.configuration.write("policy.yaml", DemoConfiguration.policy()) }
        try await until("the client is refused", within: .seconds(10)) {
            let answer = try await mesh.lab.curl("\(url)/denied", in: mesh.client)
            refusal = answer
            return answer.isRefused(within: .seconds(2))
        }
        let effect = denied.duration(to: clock.now)
        evidence.expect(
            effect < .seconds(3),
            "DENY written, client refused \(effect.milliseconds) ms later: \(refusal?.summary ?? "")")
        // curl at a limited rate sleeps for seconds between two looks at its socket.
        let status = try? await download.exit(within: .seconds(30))
        let closed = denied.duration(to: clock.now)
        evidence.expect(
            status.map { !$0.isSuccess } ?? false,
            status.map { "the download that was running was cut (\($0)) \(closed.milliseconds) ms after" }
                ?? "the download that was running went on")
        // The first request that fails may have been let in before the change and cut by it: the same policy, another
        // reason. So the log is asked about one that comes after.
        _ = try await mesh.lab.curl("\(url)/denied", in: mesh.client)
        for reason in ["policy_changed", "policy_deny"] {
            let words = [DemoConfiguration.identity("client"), reason, "shut-out"]
            let line = try? await mesh.proxies[1].log.waitForLine(containing: words, after: mark, within: .seconds(5))
            evidence.expect(line != nil, "node-2 names the policy: \(line ?? "no line with \(reason) and shut-out")")
        }

        let allowed = clock.now
        try mesh.configuration.write("policy.yaml", DemoConfiguration.policy())
        try await until("the client is let in again", within: .seconds(10)) {
            try await mesh.lab.curl("\(url)/allowed", in: mesh.client).code == 200
        }
        evidence.expect(
            true, "DENY removed, client served again \(allowed.duration(to: clock.now).milliseconds) ms later")
    }
}

extension DemoMesh {
    /// A slow download that would last most of a minute; returns when its first bytes are here.
    func startDownload(from url: String) async throws -> LabProcess {
        let name = "download-\(UInt32.random(in: 0 ... .max))"
        let file = "\(lab.folder)/\(name).body"
        let process = try lab.spawn(
            Launch(
                "curl",
                ["--silent", "--show-error", "--noproxy", "*", "--limit-rate", "150k", "-o", file, "\(url)/big"],
                in: client), name: name)
        let received = LogFile(path: file)
        try await lab.waitUntilUp(process) { received.end > 0 }
        return process
    }
}
