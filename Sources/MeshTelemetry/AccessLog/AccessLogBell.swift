import Glibc
import Synchronization

/// Wakes the writer's thread. Ringing costs a system call only when the writer sleeps.
final class AccessLogBell: Sendable {
    private let asleep = Atomic<Bool>(false)
    /// A pipe: the writer polls one end.
    private let readEnd: Int32
    private let writeEnd: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        precondition(pipe(&ends) == 0, "no file descriptor left for the access log's pipe")
        for end in ends {
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
        }
        (readEnd, writeEnd) = (ends[0], ends[1])
    }

    deinit {
        close(readEnd)
        close(writeEnd)
    }

    func ringIfAsleep() {
        if asleep.load(ordering: .sequentiallyConsistent) { ring() }
    }

    func ring() {
        guard asleep.exchange(false, ordering: .sequentiallyConsistent) else { return }
        var byte: UInt8 = 1
        // A full pipe is as good as a written one: the writer will wake.
        _ = write(writeEnd, &byte, 1)
    }

    /// Sleeps until rung, unless `hasWork` says after the announcement that there is no need to.
    func wait(unless hasWork: () -> Bool) {
        asleep.store(true, ordering: .sequentiallyConsistent)
        if hasWork() {
            asleep.store(false, ordering: .sequentiallyConsistent)
            return
        }
        var readable = pollfd(fd: readEnd, events: Int16(POLLIN), revents: 0)
        var bytes = [UInt8](repeating: 0, count: 64)
        while asleep.load(ordering: .sequentiallyConsistent) {
            _ = poll(&readable, 1, -1)
            // Inside the loop: a byte may be left from a ring that we noticed before it was written.
            while read(readEnd, &bytes, bytes.count) > 0 {}
        }
    }
}
