import Synchronization

/// Lets so many tasks through at once; the others wait in the order they came.
final class Turnstile: Sendable {
    private struct Shared {
        var free: Int
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let shared: Mutex<Shared>

    init(_ places: Int) {
        shared = Mutex(Shared(free: places))
    }

    func enter() async {
        await withCheckedContinuation { continuation in
            let isFree = shared.withLock { shared in
                guard shared.free == 0 else {
                    shared.free -= 1
                    return true
                }
                shared.waiting.append(continuation)
                return false
            }
            if isFree { continuation.resume() }
        }
    }

    /// Hands the place on, or frees it.
    func leave() {
        let next = shared.withLock { shared -> CheckedContinuation<Void, Never>? in
            guard shared.waiting.isEmpty else { return shared.waiting.removeFirst() }
            shared.free += 1
            return nil
        }
        next?.resume()
    }
}
