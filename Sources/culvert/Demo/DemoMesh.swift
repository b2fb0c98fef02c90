import Foundation
import MeshTestKit

/// The running mesh of the demo: a lab, its servers, two node proxies and a waypoint.
///
///     node-1: client  stranger  reviews-v2  plain-a        node-2: shop  cache  reviews-v1  waypoint  plain-b
///
/// `plain-a` and `plain-b` are not in the mesh: they show that the packet capture does find clear text.
final class DemoMesh {
    let lab: Lab
    let client: LabHost
    let stranger: LabHost
    let plainA: LabHost
    let plainB: LabHost
    let waypoint: LabHost
    let shop: WebServer
    let plain: WebServer
    let reviewsV1: WebServer
    let reviewsV2: WebServer
    let cache: LabHost
    let configuration: DemoConfiguration
    /// A text that must never be readable between the nodes.
    let marker: String
    /// Everything between the nodes since before the proxies started.
    let capture: PacketCapture
    private let programs: [String: String]
    private(set) var proxies: [LabProcess] = []
    private(set) var waypointProcess: LabProcess?

    private static let servers = ["nginx", "redis-server", "redis-cli", "iperf3", "curl"]

    /// Builds everything and waits until it is ready. What was built is removed when something fails.
    static func make(lifetime: Lab.Lifetime, progress: (String) -> Void) async throws -> DemoMesh {
        guard geteuid() == 0 else {
            throw LabError(.notRoot, "the demo makes network namespaces, cgroups and mounts: run it as root")
        }
        try Programs.require(servers)
        let programs = [
            "culvert-node": try ownProgram("culvert-node"), "culvert-waypoint": try ownProgram("culvert-waypoint"),
        ]
        progress("making two nodes out of network namespaces")
        let lab = try await Lab.make(nodes: 2, lifetime: lifetime)
        do {
            let mesh = try await DemoMesh(lab, programs, progress)
            try await mesh.start(progress)
            return mesh
        } catch {
            await lab.tearDown()
            throw error
        }
    }

    private init(_ lab: Lab, _ programs: [String: String], _ progress: (String) -> Void) async throws {
        self.lab = lab
        self.programs = programs
        let marker = "culvert-secret-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
        self.marker = marker
        let (one, two) = (lab.nodes[0], lab.nodes[1])
        client = try await lab.addPod("client", on: one)
        stranger = try await lab.addPod("stranger", on: one)
        let reviewsTwo = try await lab.addPod("reviews-v2", on: one)
        plainA = try await lab.addPod("plain-a", on: one)
        let shopPod = try await lab.addPod("shop", on: two)
        cache = try await lab.addPod("cache", on: two)
        let reviewsOne = try await lab.addPod("reviews-v1", on: two)
        waypoint = try await lab.addPod("waypoint", on: two)
        plainB = try await lab.addPod("plain-b", on: two)

        progress("starting nginx, redis and iperf3")
        shop = try await lab.startWebServer(in: shopPod, page: "shop greets $remote_addr \(marker)")
        reviewsV1 = try await lab.startWebServer(in: reviewsOne, page: "reviews-v1 header=$http_x_culvert_demo")
        reviewsV2 = try await lab.startWebServer(in: reviewsTwo, page: "reviews-v2 header=$http_x_culvert_demo")
        plain = try await lab.startWebServer(in: plainB, page: "plain \(marker)")
        _ = try await lab.startRedis(in: cache)
        _ = try await lab.startIperf(in: cache)

        configuration = DemoConfiguration(folder: "\(lab.folder)/config", draftFolder: lab.folder)
        capture = try lab.capture(markers: [marker])
    }

    /// Configuration, node proxies, waypoint; each is waited for.
    private func start(_ progress: (String) -> Void) async throws {
        for folder in ["config", "ca", "run"] {
            try FileManager.default.createDirectory(
                atPath: "\(lab.folder)/\(folder)", withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o755])
        }
        try configuration.write("mesh.yaml", DemoConfiguration.mesh(authorityFolder: "\(lab.folder)/ca"))
        try configuration.write("workloads.yaml", workloads)
        let services = [
            DemoConfiguration.shop, DemoConfiguration.cache, DemoConfiguration.speed, DemoConfiguration.reviews,
            DemoConfiguration.reviewsV1, DemoConfiguration.reviewsV2,
        ]
        try configuration.write("services.yaml", services.map(DemoConfiguration.service).joined())
        try configuration.write("waypoint.yaml", DemoConfiguration.waypoint)
        try configuration.write("policy.yaml", DemoConfiguration.policy())

        progress("starting a node proxy on each node")
        for node in lab.nodes { proxies.append(try startProxy(node)) }
        for node in lab.nodes { try await waitUntilReady(proxies[node.nodeNumber - 1], in: node) }
        progress("starting the waypoint, as an unprivileged user")
        try await startWaypoint()
    }

    private var workloads: String {
        let applications = [client, stranger, shop.host, cache, reviewsV1.host, reviewsV2.host]
        return applications.map { DemoConfiguration.workload($0, labels: "app: \($0.name)") }.joined()
            + DemoConfiguration.workload(
                waypoint, labels: "gateway.networking.k8s.io/gateway-name: waypoint")
    }

    // MARK: Daemons

    private func startProxy(_ node: LabHost) throws -> LabProcess {
        let arguments = [
            "--node-name", node.name, "--config", configuration.folder, "--cgroup", node.cgroup, "--bpffs", lab.bpffs,
            "--run-dir", runFolder,
        ]
        return try lab.spawn(
            Launch(programs["culvert-node"] ?? "", arguments, in: node, cgroup: "\(node.cgroup)/proxy"), name: node.name
        )
    }

    private var runFolder: String { "\(lab.folder)/run" }

    private func waitUntilReady(_ process: LabProcess, in host: LabHost) async throws {
        try await lab.waitUntilUp(process, within: .seconds(30)) {
            try await self.lab.curl("http://127.0.0.1:15021/healthz/ready", in: host).code == 200
        }
    }

    /// Starts the proxy of a node again after it was killed, and waits until it is ready.
    func restartProxy(_ node: LabHost) async throws {
        let process = try startProxy(node)
        proxies[node.nodeNumber - 1] = process
        try await waitUntilReady(process, in: node)
    }

    func startWaypoint() async throws {
        let arguments = [
            "--gateway", "\(DemoConfiguration.namespace)/waypoint", "--config", configuration.folder,
            "--identity-socket", "\(runFolder)/node-\(waypoint.nodeNumber)/identity.sock",
        ]
        let process = try lab.spawn(
            Launch(programs["culvert-waypoint"] ?? "", arguments, in: waypoint, user: "nobody"), name: "waypoint")
        waypointProcess = process
        try await waitUntilReady(process, in: waypoint)
    }

    /// Our daemons stand beside this executable, or in PATH.
    private static func ownProgram(_ name: String) throws -> String {
        let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
        let beside = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent(name).path
        if FileManager.default.isExecutableFile(atPath: beside) { return beside }
        do {
            return try Programs.find(name)
        } catch {
            throw LabError(
                .missingProgram, "no '\(name)' beside \(own) nor in PATH: build it with 'swift build --product \(name)'"
            )
        }
    }

    // MARK: Exploring

    /// What `--keep` prints.
    var hints: [(text: String, command: String)] {
        let (shop, reviews) = (DemoConfiguration.shop.urls[0], DemoConfiguration.reviews.urls[0])
        return [
            ("a page through the mesh, as the client", "\(lab.shellPrefix(client)) curl \(shop)/"),
            (
                "the same as somebody whom policy does not name",
                "\(lab.shellPrefix(stranger)) curl \(shop)/"
            ),
            ("the weighted route", "\(lab.shellPrefix(client)) curl \(reviews)/"),
            ("packets between the nodes", "\(lab.shellPrefix(lab.wire)) tcpdump -n -i bridge -X tcp port 15008"),
            ("the configuration: change it, it is applied at once", "ls \(configuration.folder)"),
            (
                "logs of the proxies",
                "tail -f \(lab.folder)/node-1.log \(lab.folder)/node-2.log \(lab.folder)/waypoint.log"
            ),
            ("the proxy's own view", "\(lab.shellPrefix(lab.nodes[0])) culvert status"),
        ]
    }
}
