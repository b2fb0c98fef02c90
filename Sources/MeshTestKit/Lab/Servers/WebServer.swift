import Foundation

/// A real nginx in a pod.
public struct WebServer: Sendable {
    public let host: LabHost
    public let port: Int
    public let process: LabProcess
    /// One line a request: the peer's address as the server sees it, the request line, the status.
    public let accessLog: LogFile

    /// How often a request whose line holds `word` came in after `offset`.
    public func requests(containing word: String, after offset: UInt64 = 0) -> Int {
        accessLog.lines(after: offset).count { $0.contains(word) }
    }
}

extension Lab {
    /// Starts nginx and waits until it answers, on IPv4 and IPv6.
    /// - Parameters:
    ///   - page: what every path answers; nginx variables (`$remote_addr`, `$http_…`) are filled in. No quotes.
    ///   - bigFileMegabytes: the size of what `/big` answers, zeros.
    public func startWebServer(
        in host: LabHost, port: Int = 8080, page: String, bigFileMegabytes: Int = 8
    ) async throws -> WebServer {
        let home = "\(folder)/\(host.name)-nginx"
        try FileManager.default.createDirectory(atPath: "\(home)/temp", withIntermediateDirectories: true)
        let big = "\(home)/big"
        guard FileManager.default.createFile(atPath: big, contents: nil), truncate(big, bigFileMegabytes << 20) == 0
        else { throw LabError(.setUp, "cannot make \(big)") }
        let settings = """
            daemon off;
            master_process off;
            pid \(home)/nginx.pid;
            events { worker_connections 8192; }
            http {
                log_format seen '$remote_addr "$request" $status';
                access_log \(home)/access.log seen;
                client_body_temp_path \(home)/temp;
                proxy_temp_path \(home)/temp;
                fastcgi_temp_path \(home)/temp;
                uwsgi_temp_path \(home)/temp;
                scgi_temp_path \(home)/temp;
                client_max_body_size 0;
                keepalive_requests 1000000;
                default_type text/plain;
                server {
                    listen \(port);
                    listen [::]:\(port);
                    location = /big { alias \(big); }
                    location / { return 200 "\(page)\\n"; }
                }
            }
            """
        let file = "\(home)/nginx.conf"
        try settings.write(toFile: file, atomically: true, encoding: .utf8)
        let process = try spawn(
            Launch("nginx", ["-e", "stderr", "-p", home, "-c", file], in: host), name: "\(host.name)-nginx")
        let server = WebServer(
            host: host, port: port, process: process, accessLog: LogFile(path: "\(home)/access.log"))
        try await waitUntilUp(process) { try await self.curl("http://127.0.0.1:\(port)/up", in: host).code == 200 }
        return server
    }

    /// Waits for a server's first answer; fails at once, with what it said, when it ended instead.
    public func waitUntilUp(
        _ process: LabProcess, within limit: Duration = .seconds(15), isolation: isolated (any Actor)? = #isolation,
        _ answers: () async throws -> Bool
    ) async throws {
        do {
            let ended: ExitStatus? = try await eventually("an answer of \(process.name)", within: limit) {
                if let status = process.status { return .some(.some(status)) }
                return try await answers() ? .some(.none) : nil
            }
            guard let ended else { return }
            throw LabError(.setUp, "\(process.name) ended with \(ended)")
        } catch let error as LabError where error.kind != .tornDown {
            throw LabError(error.kind, "\(error.description); its last words:\n\(process.log.tail())")
        }
    }
}
