internal import Logging
internal import MeshModel
internal import MeshProxy
internal import ServiceLifecycle

/// A part of the daemon that runs until shutdown and then just ends.
struct Running: Service {
    private let body: @Sendable () async throws -> Void

    init(_ body: @escaping @Sendable () async throws -> Void) {
        self.body = body
    }

    func run() async throws {
        try await cancelWhenGracefulShutdown {
            do { try await body() } catch is CancellationError {}
        }
    }
}

/// Waits for the shutdown and then for the connections, up to the limit.
struct Draining: Service {
    let plane: DataPlane
    let limits: Limits
    let logger: Logger

    func run() async throws {
        try await gracefulShutdown()
        let open = await plane.drain(atMost: .nanoseconds(limits.drainNanoseconds))
        if open > 0 { logger.warning("\(open) connections did not end in time and were closed") }
    }
}
