import Glibc
import Synchronization

/// Writes access log lines to a file descriptor from a thread of its own, so that a slow reader of the log can never
/// hold up a data core: records that find their queue full are dropped and counted.
public final class AccessLogWriter: Sendable {
    /// Records that may wait, over all queues.
    public static let defaultCapacity = 10_000
    private static let batchBytes = 64 * 1024

    /// One for each core, by its index.
    public let queues: [AccessLogQueue]
    private let fileDescriptor: Int32
    private let format: LogFormat
    private let bell = AccessLogBell()
    private let isStopping = Atomic<Bool>(false)
    private let thread = Mutex<pthread_t?>(nil)

    /// `fileDescriptor` (standard output unless told otherwise) stays the caller's.
    public init(
        fileDescriptor: Int32 = 1, format: LogFormat, cores: Int, capacity: Int = defaultCapacity
    ) {
        self.fileDescriptor = fileDescriptor
        self.format = format
        let share = max(1, capacity / max(1, cores))
        let bell = bell
        queues = (0..<cores).map { _ in AccessLogQueue(capacity: share, bell: bell) }
    }

    /// Lines that were never written.
    public var dropped: UInt64 { queues.reduce(0) { $0 + $1.dropped } }

    /// Starts the thread; a second call does nothing.
    public func start() {
        thread.withLock { thread in
            guard thread == nil else { return }
            var made = pthread_t()
            let context = Unmanaged.passRetained(self).toOpaque()
            let result = pthread_create(&made, nil, accessLogThread, context)
            precondition(result == 0, "no thread for the access log")
            thread = made
        }
    }

    /// Writes what is queued, ends the thread and waits for it. Records appended later are not written.
    public func stop() {
        thread.withLock { thread in
            guard let running = thread else { return }
            isStopping.store(true, ordering: .sequentiallyConsistent)
            bell.ring()
            pthread_join(running, nil)
            thread = nil
            isStopping.store(false, ordering: .sequentiallyConsistent)
        }
    }

    fileprivate func run() {
        // A log reader that goes away must not end the process.
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGPIPE)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        var lines = LineEncoder(format)
        while true {
            let last = isStopping.load(ordering: .sequentiallyConsistent)
            for queue in queues { write(queue, &lines) }
            if last { return }
            bell.wait {
                isStopping.load(ordering: .sequentiallyConsistent) || queues.contains { !$0.isEmpty }
            }
        }
    }

    private func write(_ queue: AccessLogQueue, _ lines: inout LineEncoder) {
        var count = 0
        func flush() {
            if !write(UnsafeRawBufferPointer(lines.written)) { queue.countLost(count) }
            lines.removeAll()
            count = 0
        }
        queue.drain { record in
            record.write(to: &lines)
            count += 1
            if lines.written.count >= AccessLogWriter.batchBytes { flush() }
        }
        if count > 0 { flush() }
    }

    private func write(_ batch: UnsafeRawBufferPointer) -> Bool {
        var rest = batch[...]
        while !rest.isEmpty {
            let count = Glibc.write(fileDescriptor, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if count > 0 {
                rest = rest.dropFirst(count)
                continue
            }
            switch errno {
            case EINTR: continue
            case EAGAIN:
                var writable = pollfd(fd: fileDescriptor, events: Int16(POLLOUT), revents: 0)
                // A reader that stays away must not keep a daemon from stopping.
                let stopping = isStopping.load(ordering: .relaxed)
                if poll(&writable, 1, stopping ? 1000 : -1) == 0, stopping { return false }
            default: return false
            }
        }
        return true
    }
}

/// The thread holds the writer until it ends.
private func accessLogThread(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let context else { return nil }
    nameThisThread("culvert-log")
    Unmanaged<AccessLogWriter>.fromOpaque(context).takeRetainedValue().run()
    return nil
}

/// Swift does not see `pthread_setname_np`; the kernel's file does the same.
private func nameThisThread(_ name: String) {
    let file = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
    guard file >= 0 else { return }
    _ = name.withCString { write(file, $0, strlen($0)) }
    close(file)
}
