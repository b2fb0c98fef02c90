public import Logging
public import ServiceLifecycle

/// A part of a daemon that runs until shutdown and then just ends.
public struct Running: ServiceLifecycle.Service {
    private let body: @Sendable () async throws -> Void

    public init(_ body: @escaping @Sendable () async throws -> Void) {
        self.body = body
    }

    public func run() async throws {
        try await cancelWhenGracefulShutdown {
            do { try await body() } catch is CancellationError {}
        }
    }
}

/// Waits for the shutdown, then for what is open. Comes last in a group of services, so that it is shut down first and
/// the endpoints still answer meanwhile.
public struct Draining: ServiceLifecycle.Service {
    private let limit: @Sendable () -> Duration
    private let drain: @Sendable (Duration) async -> Int
    private let logger: Logger

    /// - Parameters:
    ///   - limit: asked when the shutdown begins.
    ///   - drain: takes nothing new, waits that long at most, closes the rest and says how many that were.
    public init(
        atMost limit: @escaping @Sendable () -> Duration, logger: Logger,
        drain: @escaping @Sendable (Duration) async -> Int
    ) {
        self.limit = limit
        self.drain = drain
        self.logger = logger
    }

    public func run() async throws {
        try await gracefulShutdown()
        let closed = await drain(limit())
        if closed > 0 { logger.warning("\(closed) connections did not end in time and were closed") }
    }
}
