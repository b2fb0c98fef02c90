import Foundation
import Glibc

/// Tells when what a configuration path means may have changed: one thread, asleep in poll(2) unless files change.
///
/// The promise that makes "apply without restart" safe: `changed` runs after the watches of the present layout are in
/// place, so a change either happens before it reads, or is an event that brings the next call.
final class FileWatcher: Sendable {
    private let path: String
    private let quiet: Duration
    private let changed: @Sendable () -> Void
    /// A byte written here ends the thread.
    private let stopPipe: (read: Int32, write: Int32)

    /// A writer that never pauses must not keep the old state for ever.
    private static let longestWait: Duration = .seconds(1)
    /// Between readings while the kernel has no watches left for us (fs.inotify.max_user_watches).
    private static let blindWait: Duration = .seconds(2)

    /// - Parameters:
    ///   - quiet: how long nothing may happen before `changed` runs: programs write a file in several steps.
    ///   - changed: runs on the watcher's thread, first once at the start.
    init(path: String, quiet: Duration, changed: @escaping @Sendable () -> Void) throws(ConfigurationFailure) {
        self.path = path
        self.quiet = quiet
        self.changed = changed
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else {
            throw .unreadable(path: path, reason: "cannot watch: \(String(cString: strerror(errno)))")
        }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        stopPipe = (ends[0], ends[1])
    }

    deinit {
        close(stopPipe.read)
        close(stopPipe.write)
    }

    func start() throws(ConfigurationFailure) {
        guard let inotify = Inotify() else {
            let reason = "cannot watch (fs.inotify.max_user_instances): \(String(cString: strerror(errno)))"
            throw .unreadable(path: path, reason: reason)
        }
        let box = InotifyBox(inotify)
        let thread = Thread { [self] in run(box) }
        thread.name = "culvert-files"
        thread.start()
    }

    /// Ends the thread soon; `changed` may be running for the last time.
    func stop() {
        var byte: UInt8 = 0
        _ = write(stopPipe.write, &byte, 1)
    }

    private func run(_ box: InotifyBox) {
        while true {
            let isComplete = refresh(box)
            changed()
            guard waitForChange(box, atMost: isComplete ? nil : Self.blindWait) else { return }
        }
    }

    /// Sleeps until something relevant happened and then nothing did for `quiet`. False: stop.
    private func waitForChange(_ box: InotifyBox, atMost limit: Duration?) -> Bool {
        let start = ContinuousClock.now
        // When to return; nil as long as nothing happened.
        var due = limit.map { start + $0 }
        var last: ContinuousClock.Instant?
        while true {
            let now = ContinuousClock.now
            if let due, due <= now { return true }
            let milliseconds = due.map { now.duration(to: $0) / .milliseconds(1) }
            var descriptors = [
                pollfd(fd: box.inotify.descriptor, events: Int16(POLLIN), revents: 0),
                pollfd(fd: stopPipe.read, events: Int16(POLLIN), revents: 0),
            ]
            let timeout = milliseconds.map { Int32(min($0.rounded(.up), 1_000_000)) } ?? -1
            let count = poll(&descriptors, 2, timeout)
            if descriptors[1].revents != 0 { return false }
            guard count > 0, box.inotify.drain() else { continue }
            let event = ContinuousClock.now
            last = last ?? event + Self.longestWait
            due = min(event + quiet, last ?? event)
        }
    }

    /// Watches the present layout, and looks again in case it changed while the watches were made. False: the kernel
    /// had no watch left for some of it.
    private func refresh(_ box: InotifyBox) -> Bool {
        var isComplete = true
        for _ in 0..<8 {
            let wanted = layout()
            isComplete = box.inotify.watch(wanted)
            if layout() == wanted { break }
        }
        return isComplete
    }

    private func layout() -> [String: Inotify.Interest] {
        var wanted: [String: Inotify.Interest] = [:]
        func add(_ chain: LookupChain) {
            for (directory, names) in chain.names {
                wanted[directory] = wanted[directory]?.merged(with: .names(names)) ?? .names(names)
            }
            // The target itself: a directory's entries, or writes through another name of a file.
            if let resolved = chain.resolved { wanted[resolved] = .all }
        }
        add(LookupChain(path))
        for name in (try? ConfigurationPath(path: path).names()) ?? [] where name != path { add(LookupChain(name)) }
        return wanted
    }
}

/// Lets the thread's closure own the noncopyable descriptor. Only the watcher's thread touches it once started, which
/// is why it may be passed there.
private final class InotifyBox: @unchecked Sendable {
    var inotify: Inotify

    init(_ inotify: consuming Inotify) {
        self.inotify = inotify
    }
}
