internal import Foundation

/// Runs what blocks on a thread of its own: one that waits must not hold up the pool of Swift concurrency.
func onThread<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
    }
}
