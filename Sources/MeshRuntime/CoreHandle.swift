import CMeshSystem
import Synchronization

/// The way to a core from any thread.
public struct CoreHandle: Sendable {
    public let index: Int
    let mailbox: Mailbox

    /// Runs `work` on the core, in order of posting, in one of its next turns. False once the core has stopped:
    /// the work is dropped.
    @discardableResult
    public func post(_ work: @escaping @Sendable (Core) -> Void) -> Bool { mailbox.post(work) }

    /// Makes `Core.run` return after the turn in which it hears this. Work posted before still runs.
    public func stop() { mailbox.stop() }
}

/// What other threads left for a core. The only lock of the data plane, never held while anything runs.
final class Mailbox: Sendable {
    typealias Work = @Sendable (Core) -> Void

    private struct Contents {
        var work: [Work] = []
        var isStopping = false
        var isClosed = false
    }

    private let contents = Mutex(Contents())
    /// An eventfd, registered edge-triggered and never read: each write is an edge of its own.
    let signal: Int32

    init() throws(SystemError) {
        signal = try SystemError.check(mesh_poll_make_signal(), "eventfd")
    }

    deinit { mesh_close(signal) }

    func post(_ work: @escaping Work) -> Bool {
        let (isAccepted, isFirst) = contents.withLock { contents in
            if contents.isClosed { return (false, false) }
            contents.work.append(work)
            return (true, contents.work.count == 1 && !contents.isStopping)
        }
        // Only the first of a batch wakes the core: until it empties the box, that one edge stands for all.
        if isFirst { _ = mesh_poll_raise(signal) }
        return isAccepted
    }

    func stop() {
        let isFirst = contents.withLock { contents in
            defer { contents.isStopping = true }
            return contents.work.isEmpty && !contents.isStopping
        }
        if isFirst { _ = mesh_poll_raise(signal) }
    }

    /// Runs what is there; true when the core is to stop. `spare` is the emptied array of the last time.
    func drain(on core: Core, spare: inout [Work]) -> Bool {
        let isStopping = contents.withLock { contents in
            swap(&contents.work, &spare)
            if contents.isStopping { contents.isClosed = true }
            return contents.isStopping
        }
        for work in spare { work(core) }
        spare.removeAll(keepingCapacity: true)
        return isStopping
    }
}
