/// What curl brought back.
public struct CurlAnswer: Sendable {
    /// 0 when no response came.
    public let code: Int
    public let body: String
    /// curl's own exit status: 7 refused, 28 time limit, 52 closed without an answer, 56 reset.
    public let status: ExitStatus
    /// curl's error, empty when there was none.
    public let error: String
    public let duration: Duration
}

extension Lab {
    /// One request with a real curl, never through a proxy of the environment.
    /// - Parameter limit: curl's own time limit; a hang shows as exit status 28.
    public func curl(
        _ url: String, in host: LabHost, options: [String] = [], within limit: Duration = .seconds(5)
    ) async throws -> CurlAnswer {
        let seconds = Double(limit.components.seconds) + Double(limit.components.attoseconds) / 1e18
        let result = try await run(
            Launch(
                "curl",
                [
                    "--silent", "--show-error", "--noproxy", "*", "--max-time", "\(seconds)", "--write-out",
                    "\n%{http_code}",
                ] + options + [url], in: host), within: limit + .seconds(5))
        let lines = result.output.split(separator: "\n", omittingEmptySubsequences: false)
        return CurlAnswer(
            code: lines.last.flatMap { Int($0) } ?? 0, body: lines.dropLast().joined(separator: "\n"),
            status: result.status, error: result.errors.split(separator: "\n").first.map(String.init) ?? "",
            duration: result.duration)
    }
}
