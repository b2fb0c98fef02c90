internal import Logging
internal import MeshDiscovery
internal import MeshModel
internal import MeshProxy
internal import ServiceLifecycle

/// A part of the daemon that runs until shutdown and then just ends.
struct Running: ServiceLifecycle.Service {
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
struct Draining: ServiceLifecycle.Service {
    let plane: DataPlane
    let source: FileSource
    let logger: Logger

    func run() async throws {
        try await gracefulShutdown()
        let open = await plane.drain(atMost: .nanoseconds(source.state.snapshot.settings.limits.drainNanoseconds))
        if open > 0 { logger.warning("\(open) connections did not end in time and were closed") }
    }
}
