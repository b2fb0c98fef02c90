internal import ServiceLifecycle
internal import Synchronization

/// A part of the daemon that must give up its place to another daemon, and may get it back.
final class Pausable: ServiceLifecycle.Service {
    private struct State {
        var task: Task<Void, any Error>?
        var isPaused = false
        /// How often it was paused.
        var pauses = 0
    }

    private let body: @Sendable () async throws -> Void
    private let state = Mutex(State())
    private let (wakes, waker) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))

    init(_ body: @escaping @Sendable () async throws -> Void) {
        self.body = body
    }

    /// Runs the body, anew after each pause, until shutdown.
    func run() async throws {
        try await cancelWhenGracefulShutdown { [self] in
            while !Task.isCancelled {
                guard let (task, pauses) = begin() else {
                    for await _ in wakes { break }
                    continue
                }
                let result = await withTaskCancellationHandler {
                    await task.result
                } onCancel: {
                    task.cancel()
                }
                guard state.withLock({ $0.pauses == pauses }) else { continue }
                do { return try result.get() } catch is CancellationError { return }
            }
        }
    }

    private func begin() -> (Task<Void, any Error>, pauses: Int)? {
        state.withLock { state in
            guard !state.isPaused else { return nil }
            let task = Task { [body] in try await body() }
            state.task = task
            return (task, state.pauses)
        }
    }

    /// Ends the body and returns when it has ended.
    func pause() async {
        let task = state.withLock { state in
            state.isPaused = true
            state.pauses += 1
            return state.task
        }
        task?.cancel()
        _ = await task?.result
    }

    func resume() {
        state.withLock { $0.isPaused = false }
        waker.yield()
    }
}
