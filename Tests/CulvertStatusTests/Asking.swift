import Foundation
import Logging
import MeshAdmin
import MeshModel

@testable import culvert

/// Runs blocking code where it holds up no task: the server under test shares the process.
func blocking<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
    }
}

/// What a command learns from a daemon with these sources, asked over a real socket.
func asking<Result: Sendable>(
    _ sources: AdminSources, metricsPort: Bool = false,
    _ question: @escaping @Sendable (AdminClient) throws -> Result
) async throws -> Result {
    let (listening, continuation) = AsyncStream<AdminServer.Ports>.makeStream()
    let server = AdminServer(
        ports: .init(admin: 0, metrics: 0, readiness: 0), sources: sources, logger: Logger(label: "test"),
        onListening: { continuation.yield($0) })
    return try await withThrowingTaskGroup(of: Result?.self) { group in
        group.addTask {
            try await server.run()
            continuation.finish()
            return nil
        }
        group.addTask {
            for await ports in listening {
                let port = UInt16(metricsPort ? ports.metrics : ports.admin)
                let address = SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: port)
                return try await blocking { try question(AdminClient(address: address)) }
            }
            return nil
        }
        defer { group.cancelAll() }
        while let result = try await group.next() {
            if let result { return result }
        }
        throw CancellationError()
    }
}
