import Glibc

/// Wall-clock time and waiting, as a seam for tests.
public struct IdentityClock: Sendable {
    /// Unix seconds.
    public let now: @Sendable () -> Int64
    /// Waits this many seconds; returns early, without an error, when the task is cancelled.
    public let wait: @Sendable (Int64) async -> Void

    public init(now: @escaping @Sendable () -> Int64, wait: @escaping @Sendable (Int64) async -> Void) {
        self.now = now
        self.wait = wait
    }

    public static let system = IdentityClock(
        now: { Int64(time(nil)) },
        wait: { try? await Task.sleep(for: .seconds($0)) })
}
