import Foundation
import MeshTestKit
import Testing

/// One node of ours and one of strangers: what the suites about peers run on.
///
///     node-1 (culvert-node): client, server        node-2 (no proxy of ours): gateway, foreign
///
/// `server` runs the test application. `gateway` is in the mesh by its declaration alone, so whatever listens there on
/// 15008 has to speak HBONE by itself. `foreign` is not declared.
final class PeersMesh: Sendable {
    static let applicationPort = 8080

    let lab: Lab
    let client: LabHost
    let server: LabHost
    let gateway: LabHost
    let foreign: LabHost
    let proxy: LabProcess
    /// Absolute: the shims of a Python manager do not work in a lab's small environment.
    let python: String

    /// Makes the mesh, lends it and tears it down.
    /// - Parameters:
    ///   - limits: lines of the Mesh object's `limits`.
    ///   - objects: further objects.
    static func with(
        limits: String = "{}", objects: String = "", isolation: isolated (any Actor)? = #isolation,
        _ body: (PeersMesh) async throws -> Void
    ) async throws {
        try await Lab.with(nodes: 2) { lab in
            let mesh = try await PeersMesh(lab, limits: limits, objects: objects)
            do {
                try await body(mesh)
                #expect(mesh.proxy.isRunning, "the node proxy ended: \(mesh.proxy.log.tail(30))")
            } catch {
                Issue.record("\(error); the proxy's last words:\n\(mesh.proxy.log.tail(30))")
            }
        }
    }

    private init(_ lab: Lab, limits: String, objects: String) async throws {
        self.lab = lab
        python = try await lab.check(
            Launch(
                "python3", ["-c", "import sys, h2; print(sys.executable)"],
                environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? ""]))
        client = try await lab.addPod("client", on: lab.nodes[0])
        server = try await lab.addPod("server", on: lab.nodes[0])
        gateway = try await lab.addPod("gateway", on: lab.nodes[1])
        foreign = try await lab.addPod("foreign", on: lab.nodes[1])
        for folder in ["config", "certificates", "run"] {
            try FileManager.default.createDirectory(
                atPath: "\(lab.folder)/\(folder)", withIntermediateDirectories: true)
        }
        let text = Self.configuration(lab.folder, client, server, gateway, limits: limits) + objects
        try text.write(toFile: "\(lab.folder)/config/mesh.yaml", atomically: true, encoding: .utf8)
        let node = lab.nodes[0]
        let proxy = try lab.spawn(
            Launch(
                try Daemons.path("culvert-node"),
                [
                    "--node-name", node.name, "--config", "\(lab.folder)/config", "--cgroup", node.cgroup, "--bpffs",
                    lab.bpffs, "--run-dir", "\(lab.folder)/run", "--cores", "2",
                ], in: node, cgroup: "\(node.cgroup)/proxy"), name: "proxy")
        self.proxy = proxy
        try await lab.waitUntilUp(proxy, within: .seconds(60)) {
            try await lab.curl("http://127.0.0.1:15021/healthz/ready", in: node).code == 200
        }
        try await startApplication(in: server)
    }

    private static func configuration(
        _ folder: String, _ client: LabHost, _ server: LabHost, _ gateway: LabHost, limits: String
    ) -> String {
        func workload(_ name: String, _ addresses: [String], node: String, account: String, extra: String) -> String {
            let list = addresses.map { "\"\($0)\"" }.joined(separator: ", ")
            return """
                ---
                apiVersion: culvert.dev/v1alpha1
                kind: Workload
                metadata: {name: \(name), namespace: default, labels: {app: \(name)}}
                spec: {addresses: [\(list)], node: \(node), serviceAccount: \(account), protocol: TLS\(extra)}

                """
        }
        func captured(_ pod: LabHost) -> String {
            workload(
                pod.name, [pod.v4, pod.v6], node: "node-1", account: pod.name, extra: ", netns: \(pod.namespacePath)")
        }
        return """
            apiVersion: culvert.dev/v1alpha1
            kind: Mesh
            metadata: {name: default}
            spec:
              trustDomain: cluster.local
              ca: {file: {certificate: \(folder)/ca.pem, key: \(folder)/ca.key}}
              limits: \(limits)

            """ + captured(client) + captured(server)
                // One pod, declared twice: by IPv4 as what it is, by IPv6 as somebody else.
                + workload("gateway", [gateway.v4], node: "node-2", account: "envoy", extra: "")
                + workload("impostor", [gateway.v6], node: "node-2", account: "somebody-else", extra: "")
    }

    // MARK: Programs

    private static let tools = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Tools").path

    /// Runs one of the Python tools and returns its verdict, the last line it printed.
    func tool(
        _ name: String, _ arguments: [String], in host: LabHost, within limit: Duration = .seconds(60)
    ) async throws -> Verdict {
        let result = try await lab.run(
            Launch(
                python, ["\(Self.tools)/\(name).py"] + arguments, in: host,
                environment: ["PYTHONDONTWRITEBYTECODE": "1"]), within: limit)
        let line = result.output.split(separator: "\n").last.map(String.init) ?? ""
        guard let object = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else {
            throw LabError(
                .command,
                "\(name) \(arguments): \(result.timedOut ? "not done within \(limit)" : "\(result.status)"): "
                    + result.errors + result.output)
        }
        return Verdict(text: line, ok: object["ok"] as? Bool, status: object["status"] as? Int)
    }

    struct Verdict: Sendable {
        let text: String
        let ok: Bool?
        let status: Int?

        /// Whether it holds `"name": "value"`.
        func says(_ name: String, _ value: String) -> Bool { text.contains("\"\(name)\": \"\(value)\"") }
    }

    func startApplication(in host: LabHost) async throws {
        let process = try lab.spawn(
            Launch(
                python, ["\(Self.tools)/traffic.py", "serve", "\(Self.applicationPort)"], in: host,
                environment: ["PYTHONDONTWRITEBYTECODE": "1"]), name: "\(host.name)-application")
        try await lab.waitUntilUp(process, within: .seconds(60)) { process.log.line(containing: ["listening"]) != nil }
    }

    // MARK: Certificates

    struct Credentials: Sendable {
        let certificate: String
        let key: String

        var options: [String] { ["--cert", certificate, "--key", key] }
    }

    var authority: Credentials { Credentials(certificate: "\(lab.folder)/ca.pem", key: "\(lab.folder)/ca.key") }

    /// A certificate signed with the openssl command: by the mesh's CA, by `issuer`, or by itself.
    /// - Parameter expired: made in 2020, for a day.
    func issue(
        _ name: String, uri: String?, selfSigned: Bool = false, expired: Bool = false
    ) async throws -> Credentials {
        let base = "\(lab.folder)/certificates/\(name)"
        let made = Credentials(certificate: "\(base).pem", key: "\(base).key")
        let subject = uri.map { "subjectAltName=critical,URI:\($0)" } ?? "subjectAltName=DNS:example.com"
        try """
        basicConstraints=critical,CA:FALSE
        keyUsage=critical,digitalSignature
        extendedKeyUsage=serverAuth,clientAuth
        \(subject)

        """.write(toFile: "\(base).ext", atomically: true, encoding: .utf8)
        try await lab.check(
            Launch("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key]))
        try await lab.check(
            Launch("openssl", ["req", "-new", "-key", made.key, "-subj", "/O=culvert tests", "-out", "\(base).csr"]))
        // `x509 -req` of OpenSSL 3.0 takes no dates, `-days` counts from now and may be negative only with `ca`.
        let signer =
            selfSigned
            ? ["-signkey", made.key] : ["-CA", authority.certificate, "-CAkey", authority.key, "-CAcreateserial"]
        let launch = Launch(
            "openssl",
            ["x509", "-req", "-in", "\(base).csr", "-extfile", "\(base).ext", "-days", expired ? "-1" : "1", "-out"]
                + [made.certificate] + signer)
        try await lab.check(launch)
        return made
    }

    /// What the proxy holds open, sorted.
    var openDescriptors: [String] {
        let folder = "/proc/\(proxy.pid)/fd"
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.compactMap { try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)") }
            .sorted()
    }

    /// The same once no connection is open any more and ten looks in a row agree.
    func settledDescriptors() async throws -> [String] {
        var last: [String] = []
        var looks = 0
        return try await eventually("a quiet proxy", within: .seconds(60)) {
            let now = openDescriptors
            looks = now == last ? looks + 1 : 0
            last = now
            return looks >= 10 ? now : nil
        }
    }
}
