import Foundation
import MeshTestKit
import Synchronization
import Testing

/// Suites of real processes in real namespaces. One at a time: a machine of two cores has one set of timers to miss.
@Suite("End to end", .serialized)
enum EndToEnd {}

/// A mesh of two nodes, each with a node proxy of its own, and servers and clients that know nothing of it.
///
///     node-1: client, near, late, plain        node-2: far, other, outside
///
/// `plain` is declared with `protocol: TCP`, `outside` is not declared at all, `late` only by the tests that want it.
/// `near`, `far`, `plain` and `outside` run the test server. Virtual addresses: service `far` and service `near`.
final class MeshLab: Sendable {
    static let port = 8080
    static let patience = Duration.seconds(60)

    let lab: Lab
    let client: LabHost
    let near: LabHost
    let late: LabHost
    let plain: LabHost
    let far: LabHost
    let other: LabHost
    let outside: LabHost
    /// Absolute: the shims of a Python manager do not work in a lab's small environment.
    let python: String
    /// What the nodes are told to capture at; nil: nothing.
    let level: String?
    private let running = Mutex<[Int: LabProcess]>([:])

    /// Makes the mesh, lends it and takes it down.
    /// - Parameters:
    ///   - settings: further lines of the Mesh object's spec.
    ///   - nodes: whose proxies are started.
    ///   - level: their `--capture-level`.
    static func with(
        settings: [String] = [], nodes: [Int] = [1, 2], level: String? = nil,
        isolation: isolated (any Actor)? = #isolation,
        _ body: (MeshLab) async throws -> Void
    ) async throws {
        try await Lab.with(nodes: 2) { lab in
            let mesh = try await MeshLab(lab, level: level)
            do {
                try mesh.write("mesh", mesh.meshObject(settings))
                try mesh.write("workloads", mesh.workloads())
                try mesh.write("services", mesh.services)
                for host in [mesh.near, mesh.plain, mesh.far, mesh.outside] { try await mesh.serve(in: host) }
                for node in nodes { try mesh.start(node) }
                for node in nodes { try await mesh.waitUntilReady(node) }
                try await body(mesh)
                for node in mesh.running.withLock({ $0.values }) {
                    #expect(node.isRunning, "\(node.name) ended by itself: \(node.log.tail())")
                }
            } catch {
                let last = mesh.running.withLock { $0.values.map { "\($0.name):\n\($0.log.tail(12))" } }
                Issue.record("\(error)\n\(last.sorted().joined(separator: "\n"))")
            }
        }
    }

    private init(_ lab: Lab, level: String?) async throws {
        self.lab = lab
        self.level = level
        client = try await lab.addPod("client", on: lab.nodes[0])
        near = try await lab.addPod("near", on: lab.nodes[0])
        late = try await lab.addPod("late", on: lab.nodes[0])
        plain = try await lab.addPod("plain", on: lab.nodes[0])
        far = try await lab.addPod("far", on: lab.nodes[1])
        other = try await lab.addPod("other", on: lab.nodes[1])
        outside = try await lab.addPod("outside", on: lab.nodes[1])
        python = try await lab.check(
            Launch(
                "python3", ["-c", "import sys; print(sys.executable)"],
                environment: ["PATH": ProcessInfo.processInfo.environment["PATH"] ?? ""]))
        for folder in ["config", "run"] {
            try FileManager.default.createDirectory(
                atPath: "\(lab.folder)/\(folder)", withIntermediateDirectories: true)
        }
    }

    // MARK: Configuration

    /// Writes a file of the watched folder in one step.
    func write(_ name: String, _ text: String) throws {
        let draft = "\(lab.folder)/\(name).draft"
        try text.write(toFile: draft, atomically: false, encoding: .utf8)
        guard rename(draft, "\(lab.folder)/config/\(name).yaml") == 0 else {
            throw LabError(.setUp, "cannot write \(name).yaml: \(String(cString: strerror(errno)))")
        }
    }

    /// Writes a file and waits until every running node serves the new state.
    func apply(_ name: String, _ text: String) async throws {
        let before = nodes.map { ($0, $0.log.end) }
        try write(name, text)
        for (node, end) in before {
            _ = try await node.log.waitForLine(
                containing: ["configuration ", " workloads, "], after: end, within: Self.patience)
        }
    }

    /// - Parameter files: the authority's, when not the usual.
    func meshObject(
        _ settings: [String] = [], trustDomain: String = "cluster.local",
        authority files: (certificate: String, key: String)? = nil
    ) -> String {
        let authority = files ?? authority
        return """
            apiVersion: culvert.dev/v1alpha1
            kind: Mesh
            metadata: {name: default}
            spec:
              trustDomain: \(trustDomain)
              ca: {file: {certificate: \(authority.certificate), key: \(authority.key)}}
            \(settings.map { "  \($0)" }.joined(separator: "\n"))
            ---
            apiVersion: v1
            kind: Namespace
            metadata: {name: shop}

            """
    }

    var authority: (certificate: String, key: String) { ("\(lab.folder)/ca.pem", "\(lab.folder)/ca.key") }

    static func workload(
        _ pod: LabHost, name: String? = nil, namespace: String = "default", account: String? = nil,
        protocol carried: String = "TLS",
        addresses: [String]? = nil, netns: String? = nil, annotations: [String: String] = [:]
    ) -> String {
        let list = (addresses ?? [pod.v4, pod.v6]).map { "\"\($0)\"" }.joined(separator: ", ")
        let place = carried == "TLS" ? ", netns: \(netns ?? pod.namespacePath)" : ""
        let notes = annotations.map { "\"\($0)\": \"\($1)\"" }.joined(separator: ", ")
        return """
            ---
            apiVersion: culvert.dev/v1alpha1
            kind: Workload
            metadata: {name: \(name ?? pod.name), namespace: \(namespace), labels: {app: \(pod.name)}, annotations: {\(notes)}}
            spec: {addresses: [\(list)], node: node-\(pod.nodeNumber), serviceAccount: \(account ?? pod.name), protocol: \(carried)\(place)}

            """
    }

    /// The usual workloads, and more.
    func workloads(_ more: String...) -> String {
        let usual = [
            Self.workload(client), Self.workload(near), Self.workload(far), Self.workload(other, namespace: "shop"),
            Self.workload(plain, protocol: "TCP"),
        ]
        return (usual + more).joined()
    }

    static let virtual = (
        far: (v4: "10.96.0.10", v6: "fd96::10"), near: (v4: "10.96.0.20", v6: "fd96::20")
    )

    var services: String {
        [("far", Self.virtual.far), ("near", Self.virtual.near)].map { name, address in
            """
            ---
            apiVersion: v1
            kind: Service
            metadata: {name: \(name), namespace: default}
            spec:
              clusterIPs: ["\(address.v4)", "\(address.v6)"]
              selector: {app: \(name)}
              ports: [{name: tcp, port: 80, targetPort: \(Self.port)}]

            """
        }.joined()
    }

    /// One AuthorizationPolicy for every workload of its namespace.
    static func policy(_ name: String, _ action: String, namespace: String = "default", _ rules: String) -> String {
        """
        ---
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: \(name), namespace: \(namespace)}
        spec: {action: \(action), rules: [\(rules)]}

        """
    }

    // MARK: Nodes

    /// The running node proxies, in order.
    var nodes: [LabProcess] {
        running.withLock { $0.sorted { $0.key < $1.key }.map(\.value) }.filter(\.isRunning)
    }

    func node(_ number: Int) throws -> LabProcess {
        guard let node = running.withLock({ $0[number] }) else {
            throw LabError(.setUp, "node-\(number) is not started")
        }
        return node
    }

    /// The command line of a node proxy.
    func arguments(_ number: Int) -> [String] {
        [
            "--node-name", "node-\(number)", "--config", "\(lab.folder)/config", "--cgroup",
            lab.nodes[number - 1].cgroup, "--bpffs", lab.bpffs, "--run-dir", "\(lab.folder)/run", "--state-dir",
            "\(lab.folder)/state", "--cores", "2",
        ] + (level.map { ["--capture-level", $0] } ?? [])
    }

    /// - Parameters:
    ///   - prefix: a command that becomes the proxy.
    ///   - more: further arguments of the proxy.
    ///   - name: of the log, when not the usual.
    @discardableResult
    func start(
        _ number: Int, around prefix: [String] = [], more: [String] = [], name: String? = nil
    ) throws -> LabProcess {
        let host = lab.nodes[number - 1]
        let command = prefix + [try Daemons.path("culvert-node")] + arguments(number) + more
        let node = try lab.spawn(
            Launch(command[0], Array(command.dropFirst()), in: host, cgroup: "\(host.cgroup)/proxy"),
            name: name ?? "proxy-\(number)")
        running.withLock { $0[number] = node }
        return node
    }

    /// Takes a node out of the watch, for tests that end it.
    @discardableResult
    func forget(_ number: Int) throws -> LabProcess {
        let node = try node(number)
        running.withLock { $0[number] = nil }
        return node
    }

    /// Watches a process as the proxy of a node.
    func remember(_ number: Int, _ node: LabProcess) { running.withLock { $0[number] = node } }

    func readiness(_ number: Int) async throws -> CurlAnswer {
        try await lab.curl("http://127.0.0.1:15021/healthz/ready", in: lab.nodes[number - 1])
    }

    func waitUntilReady(_ number: Int) async throws {
        try await lab.waitUntilUp(try node(number), within: Self.patience) {
            try await self.readiness(number).code == 200
        }
    }

    /// A line of a node's log.
    func logged(_ number: Int, _ words: [String], after offset: UInt64 = 0) async throws -> String {
        try await node(number).log.waitForLine(containing: words, after: offset, within: Self.patience)
    }

    /// A proxy's descriptors.
    func descriptors(_ number: Int) throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(node(number).pid)/fd").count
    }

    /// A proxy's resident memory in bytes.
    func memory(_ number: Int) throws -> Int {
        let text = try String(contentsOfFile: "/proc/\(node(number).pid)/status", encoding: .utf8)
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        guard let kibibytes = line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap({ Int($0) }) else {
            throw LabError(.setUp, "no VmRSS of node-\(number)")
        }
        return kibibytes << 10
    }
}

/// The executables under test.
enum Daemons {
    /// In CULVERT_BIN, or beside the test bundle.
    static func path(_ name: String) throws -> String {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? own
        let folder =
            ProcessInfo.processInfo.environment["CULVERT_BIN"]
            ?? URL(fileURLWithPath: bundle).deletingLastPathComponent().path
        let path = "\(folder)/\(name)"
        guard FileManager.default.isExecutableFile(atPath: path) else {
            throw LabError(.missingProgram, "no \(path): build it with 'swift build --product \(name)'")
        }
        return path
    }
}
