import Glibc
public import MeshModel
import MeshTLS
import Synchronization

/// Gives SVIDs to the workloads of this machine that need one themselves (waypoints): over a unix socket that every
/// process may connect to, because the kernel says who connected.
///
/// The caller's process tells its network namespace, the namespace tells the workload, and the workload has one
/// identity; a request for another is refused. One thread of its own serves all connections without blocking on any;
/// each has `timeoutMilliseconds` from accept to the last byte.
// Sendable: everything the thread works on belongs to it alone; the rest is immutable or inside the mailbox's mutex.
public final class IdentityServer: Sendable {
    public struct Limits: Hashable, Sendable {
        /// More wait in the kernel's backlog.
        public var connections = 256
        /// More from one namespace are turned away.
        public var connectionsPerNamespace = 8
        public var timeoutMilliseconds: Int64 = 5000

        public init() {}
    }

    private let path: String
    private let inode: UInt64
    private let mailbox: IdentityMailbox
    // The thread's id is written once before init returns; pthread_t is a plain number here.
    private let thread: Mutex<pthread_t?>

    /// Starts serving.
    /// - Parameters:
    ///   - path: where the socket is made, mode 0666, in a folder that only the daemon's user can write.
    ///   - workload: the identity of the workload whose network namespace has this inode; nil when none has.
    ///     Called on the server's thread.
    public init(
        path: String, signer: any CertificateSigner, limits: Limits = Limits(),
        workload: @escaping @Sendable (_ netnsInode: UInt64) -> SPIFFEID?
    ) throws(IdentityError) {
        let mailbox = try IdentityMailbox()
        let listener: Int32
        do throws(IdentityError) {
            listener = try UnixSocket.listen(path)
        } catch {
            mailbox.close()
            throw error
        }
        var status = stat()
        lstat(path, &status)
        self.path = path
        inode = UInt64(status.st_ino)
        self.mailbox = mailbox
        let loop = IdentityLoop(
            listener: listener, mailbox: mailbox, signer: signer, limits: limits, workload: workload)
        var started = pthread_t()
        let argument = Unmanaged.passRetained(loop).toOpaque()
        let code = pthread_create(
            &started, nil,
            { argument in
                // The loop moves to the new thread with its only reference.
                Unmanaged<IdentityLoop>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, argument)
        guard code == 0 else {
            Unmanaged<IdentityLoop>.fromOpaque(argument).release()
            close(listener)
            unlink(path)
            mailbox.close()
            throw IdentityError(.unavailable, "cannot start a thread: \(String(cString: strerror(code)))")
        }
        thread = Mutex(started)
    }

    deinit { stop() }

    /// Ends all connections and removes the socket file if it is still ours. Returns when the thread has ended.
    public func stop() {
        let running = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        guard let running else { return }
        mailbox.requestStop()
        pthread_join(running, nil)
        mailbox.close()
        var status = stat()
        if lstat(path, &status) == 0, UInt64(status.st_ino) == inode { unlink(path) }
    }
}

/// How signers' answers and the order to stop reach the server's thread.
final class IdentityMailbox: Sendable {
    private struct Shared {
        var answers: [(connection: UInt64, bytes: [UInt8])] = []
        var isStopping = false
        var isClosed = false
    }

    /// Readable when there is something.
    let descriptor: Int32
    private let bell: Int32
    private let shared = Mutex(Shared())

    init() throws(IdentityError) {
        var ends: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
            throw IdentityError(.unavailable, "cannot make a socket pair: \(String(cString: strerror(errno)))")
        }
        descriptor = ends[0]
        bell = ends[1]
    }

    /// From any thread. An answer after `close` is dropped: its connection is gone.
    func post(_ bytes: [UInt8], for connection: UInt64) {
        shared.withLock { shared in
            guard !shared.isClosed else { return }
            shared.answers.append((connection, bytes))
            ring()
        }
    }

    func requestStop() {
        shared.withLock { shared in
            shared.isStopping = true
            ring()
        }
    }

    /// What came since the last call; nil when it is time to stop.
    func take() -> [(connection: UInt64, bytes: [UInt8])]? {
        shared.withLock { shared in
            var rings: [UInt8] = .init(repeating: 0, count: 256)
            while recv(descriptor, &rings, rings.count, 0) == rings.count {}
            guard !shared.isStopping else { return nil }
            defer { shared.answers = [] }
            return shared.answers
        }
    }

    /// Under the lock, so that nobody writes to a number that means another file by then.
    func close() {
        shared.withLock { shared in
            guard !shared.isClosed else { return }
            shared.isClosed = true
            Glibc.close(descriptor)
            Glibc.close(bell)
        }
    }

    /// A full bell rings already.
    private func ring() {
        _ = send(bell, [1], 1, Int32(MSG_NOSIGNAL))
    }
}
