import Foundation
import Logging
import MeshModel
import Synchronization
import Testing

@testable import MeshAdmin

/// What the endpoints of a test show, changeable while they run.
private final class Daemon: Sendable {
    struct State: Sendable {
        var notReady: [String] = []
        var level = "info"
    }

    let state = Mutex(State())

    var sources: AdminSources {
        AdminSources(
            daemon: Fixture.daemon, snapshot: { Fixture.mesh }, connections: { Fixture.connections },
            certificates: { [] }, metrics: { "# TYPE culvert_x counter\nculvert_x 1\n" },
            notReady: { self.state.withLock { $0.notReady } }, logLevel: { self.state.withLock { $0.level } },
            setLogLevel: { level in
                if level == "loud" { return "loud is no level" }
                self.state.withLock { $0.level = level ?? "info" }
                return nil
            })
    }
}

@Suite("Admin server over HTTP")
struct AdminServerTests {
    struct Answer {
        let status: Int
        let type: String?
        let body: String
    }

    /// Runs a server on free ports for the time of `body`.
    private func withServer(
        _ daemon: Daemon, _ body: @Sendable @escaping (AdminServer.Ports) async throws -> Void
    ) async throws {
        let (listening, continuation) = AsyncStream<AdminServer.Ports>.makeStream()
        let server = AdminServer(
            ports: .init(admin: 0, metrics: 0, readiness: 0), sources: daemon.sources, logger: Logger(label: "test"),
            onListening: { continuation.yield($0) })
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await server.run()
                continuation.finish()
            }
            for await ports in listening {
                try await body(ports)
                group.cancelAll()
            }
            try await group.waitForAll()
        }
    }

    private static func ask(_ port: Int, _ path: String, method: String = "GET") async throws -> Answer {
        try await PlainHTTP.off {
            let client = try PlainHTTP(port: port)
            try client.send(
                "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return try client.answer()
        }
    }

    @Test("Each listener answers its pages, and run() ends when its task is cancelled")
    func pages() async throws {
        try await withServer(Daemon()) { ports in
            #expect(Set([ports.admin, ports.metrics, ports.readiness]).count == 3)
            for path in ["/metrics", "/stats/prometheus"] {
                let metrics = try await Self.ask(ports.metrics, path)
                #expect(metrics.status == 200 && metrics.body.hasSuffix("culvert_x 1\n"))
                #expect(metrics.type == "text/plain; version=0.0.4; charset=utf-8")
            }
            for path in ["/snapshot", "/connections", "/config_dump"] {
                let answer = try await Self.ask(ports.admin, path)
                #expect(answer.status == 200 && answer.type == "application/json")
                _ = try Fixture.parse(answer.body)
            }
            #expect(try await Self.ask(ports.admin, "/").body.contains("/snapshot"))
            // Nothing private on the open ports.
            for port in [ports.metrics, ports.readiness] {
                for path in ["/snapshot", "/config_dump", "/logging", "/"] {
                    #expect(try await Self.ask(port, path).status == 404)
                }
            }
            #expect(try await Self.ask(ports.admin, "/nothing").status == 404)
            #expect(try await Self.ask(ports.admin, "/snapshot", method: "POST").status == 405)
            let head = try await Self.ask(ports.readiness, "/healthz/ready", method: "HEAD")
            #expect(head.status == 200 && head.body.isEmpty)
        }
    }

    @Test("Readiness names what is pending")
    func readiness() async throws {
        let daemon = Daemon()
        try await withServer(daemon) { ports in
            let ready = try await Self.ask(ports.readiness, "/healthz/ready")
            #expect(ready.status == 200 && ready.body == "ready\n")
            daemon.state.withLock { $0.notReady = ["default/shop: netns is missing", "identity"] }
            for port in [ports.readiness, ports.admin] {
                let answer = try await Self.ask(port, "/healthz/ready")
                #expect(answer.status == 503)
                #expect(answer.body == "not ready, pending: default/shop: netns is missing, identity\n")
            }
        }
    }

    @Test("Log levels are read, set, refused and reset")
    func logging() async throws {
        try await withServer(Daemon()) { ports in
            func post(_ query: String) async throws -> Answer {
                try await Self.ask(ports.admin, "/logging" + query, method: "POST")
            }
            #expect(try await Self.ask(ports.admin, "/logging").body == "current log level is info\n")
            #expect(try await post("?level=tls=debug,warn").body == "current log level is tls=debug,warn\n")
            let refused = try await post("?level=loud")
            #expect(refused.status == 400 && refused.body == "loud is no level\n")
            #expect(try await post("?volume=11").status == 400)
            #expect(try await post("").body == "current log level is tls=debug,warn\n")
            #expect(try await post("?reset").body == "current log level is info\n")
            #expect(try await Self.ask(ports.admin, "/logging", method: "PUT").status == 405)
        }
    }

    @Test("A port that is taken is a clear error, and the other listeners are closed again")
    func takenPort() async throws {
        try await withServer(Daemon()) { ports in
            let second = AdminServer(
                ports: .init(admin: ports.admin, metrics: 0, readiness: 0), sources: Daemon().sources,
                logger: Logger(label: "test"))
            let error = await #expect(throws: AdminError.self) { try await second.run() }
            #expect(error?.port == ports.admin && error?.cause == "Address already in use")
            #expect(error?.description.contains("127.0.0.1 port \(ports.admin) for admin") == true)
        }
    }

    @Test("An idle keep-alive connection does not keep the server from stopping")
    func openConnection() async throws {
        // Kept until the server has ended.
        let opened = Mutex<PlainHTTP?>(nil)
        try await withServer(Daemon()) { ports in
            let client = try await PlainHTTP.off {
                let client = try PlainHTTP(port: ports.readiness)
                try client.send("GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
                #expect(try client.some().hasPrefix("HTTP/1.1 200"))
                return client
            }
            opened.withLock { $0 = client }
        }
        opened.withLock { $0 = nil }
    }
}
