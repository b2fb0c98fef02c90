import Glibc
import MeshRuntime
import Synchronization
import Testing

@Suite struct CoreThreadTests {
    @Test func mailFromManyThreadsArrivesOnceAndInOrder() throws {
        final class Arrivals: Sendable {
            let values = Mutex([[Int]](repeating: [], count: 4))
        }
        let core = try Core(index: 3)
        let handle = core.handle
        let arrivals = Arrivals()
        let thread = try core.start()
        let senders = try (0..<4).map { sender in
            let sending = try Core(index: 10 + sender)
            sending.handle.post { core in
                for value in 0..<5_000 {
                    handle.post { _ in arrivals.values.withLock { $0[sender].append(value) } }
                }
                core.handle.stop()
            }
            return try sending.start()
        }
        senders.forEach { $0.join() }
        handle.stop()
        thread.join()
        let expected = Array(0..<5_000)
        #expect(arrivals.values.withLock { $0.allSatisfy { $0 == expected } })
        #expect(!handle.post { _ in })
    }

    @Test func aCoreRunsOnANamedThreadWithoutSignals() throws {
        final class Seen: Sendable {
            let name = Mutex("")
            let isTermBlocked = Mutex(false)
        }
        let seen = Seen()
        let core = try Core(index: 5)
        let handle = core.handle
        #expect(handle.index == 5)
        let thread = try core.start()
        handle.post { core in
            var name = [UInt8](repeating: 0, count: 64)
            if let file = fopen("/proc/thread-self/comm", "r") {
                let count = fread(&name, 1, name.count, file)
                fclose(file)
                seen.name.withLock { $0 = String(decoding: name[..<count], as: UTF8.self) }
            }
            var mask = sigset_t()
            pthread_sigmask(SIG_BLOCK, nil, &mask)
            let isBlocked = sigismember(&mask, SIGTERM) == 1
            seen.isTermBlocked.withLock { $0 = isBlocked }
            core.handle.stop()
        }
        thread.join()
        #expect(seen.name.withLock { $0 } == "culvert-core-5\n")
        #expect(seen.isTermBlocked.withLock { $0 })
    }

    @Test func stoppingBeforeStartingEndsAtOnceAndRunsWhatWasPosted() throws {
        final class Seen: Sendable {
            let count = Mutex(0)
        }
        let seen = Seen()
        let core = try Core(index: 0)
        core.handle.post { _ in seen.count.withLock { $0 += 1 } }
        core.handle.stop()
        core.run()
        #expect(seen.count.withLock { $0 } == 1)
    }

    @Test func mailPostedByMailIsHeard() throws {
        final class Seen: Sendable {
            let count = Mutex(0)
        }
        let seen = Seen()
        let core = try Core(index: 0)
        let handle = core.handle
        handle.post { _ in
            handle.post { _ in
                seen.count.withLock { $0 += 1 }
                handle.stop()
            }
        }
        core.run()
        #expect(seen.count.withLock { $0 } == 1)
    }
}
