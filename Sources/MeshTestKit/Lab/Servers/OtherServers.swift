extension Lab {
    /// Starts a real redis on every address and waits for its PONG.
    public func startRedis(in host: LabHost, port: Int = 6379) async throws -> LabProcess {
        let process = try spawn(
            Launch(
                "redis-server",
                [
                    "--port", "\(port)", "--bind", "*", "-::*", "--protected-mode", "no", "--save", "", "--dir", folder,
                    "--daemonize", "no",
                ], in: host), name: "\(host.name)-redis")
        try await waitUntilUp(process) {
            try await self.run(Launch("redis-cli", ["-p", "\(port)", "ping"], in: host)).text == "PONG"
        }
        return process
    }

    /// Starts a real iperf3 server and waits until it listens.
    public func startIperf(in host: LabHost, port: Int = 5201) async throws -> LabProcess {
        let process = try spawn(
            Launch("iperf3", ["--server", "--port", "\(port)", "--forceflush"], in: host), name: "\(host.name)-iperf3")
        try await waitUntilUp(process) { process.log.line(containing: ["Server listening"]) != nil }
        return process
    }
}
