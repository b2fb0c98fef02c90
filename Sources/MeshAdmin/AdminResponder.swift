import HTTPTypes
import Hummingbird
import MeshModel

/// What each listener answers. Paths are few and fixed, so this is a switch and not a router.
struct AdminResponder: HTTPResponder {
    typealias Context = BasicRequestContext

    let role: AdminServer.Role
    let sources: AdminSources

    func respond(to request: Request, context: Context) async throws -> Response {
        let isHead = request.method == .head
        guard let response = try await answer(request, method: isHead ? .get : request.method) else {
            return Self.text(.notFound, "no such page; there are: \(paths.joined(separator: " "))\n")
        }
        return isHead ? response.createHeadResponse() : response
    }

    /// The pages of this listener.
    private var paths: [String] {
        switch role {
        case .admin:
            ["/snapshot", "/connections", "/config_dump", "/logging", "/healthz/ready"]
                + (sources.capture == nil ? [] : ["/capture"])
        case .metrics: ["/metrics", "/stats/prometheus"]
        case .readiness: ["/healthz/ready"]
        }
    }

    /// nil: no such page here.
    private func answer(_ request: Request, method: HTTPRequest.Method) async throws -> Response? {
        let path = request.uri.path
        guard paths.contains(path) || (path == "/" && role == .admin) else { return nil }
        if path == "/logging", method == .post { return await setLogging(request) }
        guard method == .get else {
            var response = Self.text(.methodNotAllowed, "\(path) does not take \(method.rawValue)\n")
            response.headers[.allow] = path == "/logging" ? "GET, POST" : "GET"
            return response
        }
        switch path {
        case "/snapshot":
            return Self.json(
                try jsonText(
                    SnapshotDocument(
                        await sources.snapshot(), daemon: sources.daemon, notReady: await sources.notReady())))
        case "/connections":
            return Self.json(try jsonText(ConnectionsDocument(await sources.connections())))
        case "/config_dump":
            return Self.json(
                try jsonText(
                    ConfigDump(
                        await sources.snapshot(), daemon: sources.daemon, connections: await sources.connections(),
                        certificates: await sources.certificates())))
        case "/capture": return try await explainCapture(request)
        case "/logging": return await currentLogging()
        case "/healthz/ready": return await readiness()
        case "/metrics", "/stats/prometheus":
            return Self.text(.ok, await sources.metrics(), type: "text/plain; version=0.0.4; charset=utf-8")
        default: return Self.text(.ok, paths.map { "\($0)\n" }.joined())
        }
    }

    private func readiness() async -> Response {
        let pending = await sources.notReady()
        if pending.isEmpty { return Self.text(.ok, "ready\n") }
        return Self.text(.serviceUnavailable, "not ready, pending: \(pending.joined(separator: ", "))\n")
    }

    private func currentLogging() async -> Response {
        Self.text(.ok, "current log level is \(await sources.logLevel())\n")
    }

    /// `?level=LEVEL`, `?level=SCOPE=LEVEL,…` or `?reset`, as istioctl sends them.
    private func setLogging(_ request: Request) async -> Response {
        let query = request.uri.queryParameters
        if let level = query["level"] {
            if let refusal = await sources.setLogLevel(String(level)) { return Self.text(.badRequest, "\(refusal)\n") }
        } else if let word = request.uri.query, word == "reset" || word == "reset=" {
            _ = await sources.setLogLevel(nil)
        } else if request.uri.query?.isEmpty == false {
            return Self.text(.badRequest, "usage: POST /logging?level=LEVEL, ?level=SCOPE=LEVEL,... or ?reset\n")
        }
        return await currentLogging()
    }

    /// `?workload=NAMESPACE/NAME`, or a NAME that is the only one; with `&to=ADDRESS:PORT` also the way there.
    private func explainCapture(_ request: Request) async throws -> Response {
        let query = request.uri.queryParameters
        let destination = query["to"].map { SocketAddress(String($0)) }
        guard let capture = sources.capture, let name = query["workload"], !name.isEmpty, destination != .some(nil)
        else {
            return Self.text(.badRequest, "usage: GET /capture?workload=NAMESPACE/NAME[&to=ADDRESS:PORT]\n")
        }
        let candidates: [ObjectName]
        let error: String
        let status: HTTPResponse.Status
        switch await capture(String(name), destination ?? nil) {
        case .explained(let explanation): return Self.json(try jsonText(explanation))
        case .ambiguous(let names):
            (candidates, status) = (names, .conflict)
            error = "\(names.count) workloads are named \"\(name)\": say which namespace"
        case .unknown(let names):
            (candidates, status) = (names, .notFound)
            error = "no workload \"\(name)\" is known to this node"
        }
        let refusal = CaptureRefusal(error: error, candidates: candidates.map(\.description))
        return Self.json(try jsonText(refusal), status: status)
    }

    private static func json(_ text: String, status: HTTPResponse.Status = .ok) -> Response {
        Self.text(status, text, type: "application/json")
    }

    private static func text(
        _ status: HTTPResponse.Status, _ text: String, type: String = "text/plain; charset=utf-8"
    ) -> Response {
        Response(
            status: status, headers: [.contentType: type], body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
    }
}
