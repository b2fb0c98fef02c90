import Foundation
import MeshTestKit
import Synchronization
import Testing

/// A waypoint in the mesh of ``MeshLab``, with services behind it.
///
///     shop   bound, port 80 http and port 9090 bytes; its own endpoint is `far`     alpha  `near`, not bound
///     alone  bound, no route; its own endpoint is `near`                            beta   `far`, not bound
///     empty  no endpoint
///     inherits, exempt   in namespace `bound`, whose label binds it; their endpoint is `late`
final class WaypointLab: Sendable {
    static let webPort = 9000
    static let gateway = "default/waypoint"

    static let shop = "10.96.1.1"
    static let shopV6 = "fd96::1:1"
    static let alone = "10.96.1.2"
    static let inherits = "10.96.1.6"
    static let exempt = "10.96.1.7"

    let mesh: MeshLab
    let host: LabHost
    let servers: [LabProcess]
    private let process = Mutex<LabProcess?>(nil)

    /// - Parameter starts: whether the waypoint is started.
    static func with(
        routes: String = WaypointLab.routes, starts: Bool = true, isolation: isolated (any Actor)? = #isolation,
        _ body: (WaypointLab) async throws -> Void
    ) async throws {
        try await MeshLab.with { mesh in
            let host = try await mesh.lab.addPod("waypoint", on: mesh.lab.nodes[1])
            var servers: [LabProcess] = []
            for (pod, name) in [(mesh.near, "alpha"), (mesh.far, "beta"), (mesh.late, "late")] {
                servers.append(try await mesh.webServer(name, in: pod))
            }
            let waypoint = WaypointLab(mesh, host, servers)
            try await mesh.apply("waypoint", waypoint.objects + routes)
            if starts {
                let running = try waypoint.start()
                try await waypoint.waitUntilReady(running)
            }
            try await body(waypoint)
        }
    }

    private init(_ mesh: MeshLab, _ host: LabHost, _ servers: [LabProcess]) {
        (self.mesh, self.host, self.servers) = (mesh, host, servers)
    }

    // MARK: The daemon

    var identitySocket: String { "\(mesh.lab.folder)/run/node-2/identity.sock" }

    func launch(_ arguments: [String]) throws -> Launch {
        Launch(try Daemons.path("culvert-waypoint"), arguments, in: host, user: "nobody")
    }

    func arguments(gateway: String = WaypointLab.gateway, identitySocket: String? = nil) -> [String] {
        [
            "--gateway", gateway, "--config", "\(mesh.lab.folder)/config", "--identity-socket",
            identitySocket ?? self.identitySocket, "--cores", "2",
        ]
    }

    @discardableResult
    func start(identitySocket: String? = nil) throws -> LabProcess {
        let started = try mesh.lab.spawn(try launch(arguments(identitySocket: identitySocket)), name: "waypoint")
        process.withLock { $0 = started }
        return started
    }

    func readiness() async throws -> CurlAnswer {
        try await mesh.lab.curl("http://127.0.0.1:15021/healthz/ready", in: host)
    }

    func waitUntilReady(_ process: LabProcess) async throws {
        try await mesh.lab.waitUntilUp(process, within: MeshLab.patience) { try await self.readiness().code == 200 }
    }

    var running: LabProcess {
        get throws {
            guard let process = process.withLock({ $0 }) else { throw LabError(.setUp, "the waypoint is not started") }
            return process
        }
    }

    func logged(_ words: String..., after offset: UInt64 = 0) async throws -> String {
        try await running.log.waitForLine(containing: words, after: offset, within: MeshLab.patience)
    }

    /// Writes a file and waits until nodes and waypoint serve the new state.
    func apply(_ name: String, _ text: String) async throws {
        let end = try running.log.end
        try await mesh.apply(name, text)
        _ = try await logged("configuration ", " routes, ", after: end)
    }

    /// Whether a backend was ever asked for something with this word in its first line.
    func wasAsked(_ word: String) -> Bool {
        servers.contains { $0.log.line(containing: ["request", word]) != nil }
    }

    // MARK: Requests

    struct Answer: Decodable {
        let status: Int
        let end: String
        let text: String
        let backend: String
        let headers: [[String]]

        func values(_ name: String) -> [String] { headers.filter { $0.first == name }.compactMap(\.last) }

        /// The waypoint names the caller in what it forwards.
        var cameThroughWaypoint: Bool { !values("x-forwarded-client-cert").isEmpty }
    }

    struct Question: Encodable {
        var method = "GET"
        let path: String
        var headers: [[String]] = []

        init(_ path: String, method: String = "GET", _ headers: [String]...) {
            (self.path, self.method, self.headers) = (path, method, headers)
        }
    }

    func ask(
        _ questions: [Question], at address: String = WaypointLab.shop, from caller: LabHost? = nil
    ) async throws -> [Answer] {
        struct Answers: Decodable { let answers: [Answer] }
        let text = String(decoding: try JSONEncoder().encode(questions), as: UTF8.self)
        let verdict = try await mesh.http("ask", address, "80", text, from: caller ?? mesh.client)
        return try JSONDecoder().decode(Answers.self, from: Data(verdict.description.utf8)).answers
    }

    func ask(
        _ path: String, at address: String = WaypointLab.shop, from caller: LabHost? = nil
    ) async throws -> Answer {
        try await ask([Question(path)], at: address, from: caller)[0]
    }

    // MARK: Configuration

    private var objects: String {
        func service(
            _ name: String, _ number: Int, app: String, namespace: String = "default", waypoint: String? = nil,
            ports: String = ""
        ) -> String {
            """
            ---
            apiVersion: v1
            kind: Service
            metadata:
              name: \(name)
              namespace: \(namespace)
              labels: {\(waypoint.map { "istio.io/use-waypoint: \"\($0)\"" } ?? "")}
            spec:
              clusterIPs: ["10.96.1.\(number)", "fd96::1:\(number)"]
              selector: {app: \(app)}
              ports:
                - {name: web, port: 80, targetPort: \(Self.webPort), appProtocol: http}
            \(ports)

            """
        }
        return """
            apiVersion: v1
            kind: Namespace
            metadata:
              name: bound
              labels: {istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: default}
            ---
            apiVersion: culvert.dev/v1alpha1
            kind: Workload
            metadata:
              name: waypoint
              namespace: default
              labels: {gateway.networking.k8s.io/gateway-name: waypoint}
            spec:
              addresses: ["\(host.v4)", "\(host.v6)"]
              node: node-2
              serviceAccount: waypoint
              protocol: TLS
              netns: \(host.namespacePath)
            ---
            apiVersion: gateway.networking.k8s.io/v1
            kind: Gateway
            metadata: {name: waypoint, namespace: default}
            spec:
              gatewayClassName: culvert-waypoint
              listeners: [{name: mesh, port: 15008, protocol: HBONE}]

            """ + MeshLab.workload(mesh.late, namespace: "bound")
                + service(
                    "shop", 1, app: "far", waypoint: "waypoint",
                    ports: "    - {name: bytes, port: 9090, targetPort: \(MeshLab.port)}")
                + service("alone", 2, app: "near", waypoint: "waypoint")
                + service("alpha", 3, app: "near") + service("beta", 4, app: "far") + service("empty", 5, app: "nobody")
                + service("inherits", 6, app: "late", namespace: "bound")
                + service("exempt", 7, app: "late", namespace: "bound", waypoint: "none")
    }

    static func route(_ name: String, _ rules: String) -> String {
        """
        ---
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: \(name), namespace: default}
        spec:
          parentRefs: [{group: "", kind: Service, name: shop, port: 80}]
          rules:
        \(rules)

        """
    }

    static func rule(_ match: String, _ backends: String..., filter: String = "") -> String {
        """
            - matches: [{\(match)}]
              filters: [\(filter)]
              backendRefs: [\(backends.map { "{\($0)}" }.joined(separator: ", "))]

        """
    }

    static func prefix(_ path: String) -> String { "path: {type: PathPrefix, value: \(path)}" }

    static var routes: String {
        let (alpha, beta) = ("name: alpha, port: 80", "name: beta, port: 80")
        let edits = """
            {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: new}], \
            add: [{name: x-add, value: more}], remove: [x-gone]}}
            """
        let rules =
            rule("path: {type: Exact, value: /exact}", alpha)
            + rule(prefix("/a"), beta)
            + rule("\(prefix("/h")), headers: [{name: x-version, value: two}]", beta)
            + rule(prefix("/h"), alpha)
            + rule("\(prefix("/m")), method: POST", beta)
            + rule(prefix("/all"), "\(alpha), weight: 100", "\(beta), weight: 0")
            + rule(prefix("/half"), "\(alpha), weight: 50", "\(beta), weight: 50")
            + rule(prefix("/edit"), alpha, filter: edits)
            + rule(prefix("/ghost"), "name: ghost, port: 80")
            + rule(prefix("/empty"), "name: empty, port: 80")
            + rule(prefix("/tie"), alpha)
        return route("first", rules) + route("second", rule(prefix("/a/deep"), alpha) + rule(prefix("/tie"), beta))
    }

    /// A policy of the service `shop` that its waypoint enforces.
    static func policy(_ action: String, callers: [String]) -> String {
        let list = callers.map { "\"cluster.local/ns/default/sa/\($0)\"" }.joined(separator: ", ")
        return """
            apiVersion: security.istio.io/v1
            kind: AuthorizationPolicy
            metadata: {name: shop-callers, namespace: default}
            spec:
              targetRefs: [{group: "", kind: Service, name: shop}]
              action: \(action)
              rules: [{from: [{source: {principals: [\(list)]}}]}]

            """
    }
}

extension MeshLab {
    private static let http11 = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Tools/http11.py").path

    private func launch(_ arguments: [String], in host: LabHost) -> Launch {
        Launch(python, [Self.http11] + arguments, in: host, environment: ["PYTHONDONTWRITEBYTECODE": "1"])
    }

    /// Runs one of the clients of http11.py to its end.
    func http(_ arguments: String..., from host: LabHost) async throws -> Verdict {
        let result = try await lab.run(launch(arguments, in: host), within: Self.patience)
        guard result.isSuccess, let line = result.output.split(separator: "\n").last else {
            throw LabError(.command, "http11 \(arguments): \(result.status): \(result.errors)\(result.output)")
        }
        return Verdict(String(line))
    }

    /// Starts one of the clients of http11.py.
    func startHTTP(_ arguments: String..., from host: LabHost) throws -> LabProcess {
        try lab.spawn(launch(arguments, in: host), name: "\(arguments[0])-\(UInt32.random(in: 0 ... .max))")
    }

    func webServer(_ name: String, in host: LabHost) async throws -> LabProcess {
        let server = try lab.spawn(launch(["serve", "\(WaypointLab.webPort)", name], in: host), name: "\(name)-web")
        try await lab.waitUntilUp(server, within: Self.patience) {
            server.log.line(containing: ["listening"]) != nil
        }
        return server
    }
}
