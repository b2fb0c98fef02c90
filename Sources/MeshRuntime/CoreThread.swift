import CMeshSystem

/// The thread a core runs on.
public struct CoreThread: Sendable {
    private let thread: UInt64

    fileprivate init(_ thread: UInt64) { self.thread = thread }

    /// Waits until the core has stopped. Once.
    public func join() { _ = mesh_thread_join(thread) }
}

extension Core {
    /// Runs the core on a thread of its own, named `culvert-core-N`, which takes no signals. From now on the core and
    /// all that hangs on it belong to that thread: only `handle` may be used elsewhere.
    public func start() throws(SystemError) -> CoreThread {
        let core = Unmanaged.passRetained(self)
        var thread: UInt64 = 0
        let result = mesh_thread_start(runCore, core.toOpaque(), "culvert-core-\(index)", &thread)
        if result < 0 {
            core.release()
            throw SystemError(code: -result, operation: "pthread_create")
        }
        return CoreThread(thread)
    }
}

/// The thread's entry; it owns the reference taken by `start`.
private func runCore(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    Unmanaged<Core>.fromOpaque(argument).takeRetainedValue().run()
    return nil
}
