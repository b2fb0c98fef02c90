internal import CMeshSystem
internal import Glibc

/// One daemon for one node name. Two locks that the kernel frees with the process, however it ends: a file of the run
/// directory, which says who has it, and the directory of the pins, which is what they protect; the second one also
/// keeps daemons apart that do not share a run directory, as in two containers.
///
/// flock(2) asks for no more than a readable descriptor, so nobody else may be able to open either of them.
struct NodeLock: Sendable {
    private let file: Descriptor
    /// nil at levels without pins.
    private let directory: Descriptor?

    static func path(_ options: CaptureOptions) -> String { "\(options.runtimeDirectory)/\(options.nodeName).lock" }

    /// Holds the node's sockets and records.
    private static func nodeDirectory(_ options: CaptureOptions) -> String {
        "\(options.runtimeDirectory)/\(options.nodeName)"
    }

    /// Waypoints of any user come through it to the identity socket, whose server locks it.
    static let nodeDirectoryMode: mode_t = 0o711

    /// Refuses a run directory in which others could put a lock, a socket or a record in the place of ours. What is
    /// missing is no obstacle.
    static func requireOwnDirectories(_ options: CaptureOptions) throws(KernelError) {
        for (path, isNamed) in [(options.runtimeDirectory, true), (nodeDirectory(options), false)] {
            let complaint = OwnDirectory.complaint(about: path, owners: OwnDirectory.trusted, isLinkAllowed: isNamed)
            guard let complaint else { continue }
            throw KernelError(
                .system, "using the run directory", at: path,
                cause: "\(complaint): others could take the place of the node proxy there",
                remedy: "chown it to the daemon's user and chmod go-w, or name another --run-dir")
        }
    }

    /// - Parameter pins: the node's directory on the bpffs, which exists; nil at levels without one.
    static func take(_ options: CaptureOptions, pins: String?) throws(KernelError) -> NodeLock {
        try requireOwnDirectories(options)
        let made = Files.makeDirectories(options.runtimeDirectory, mode: 0o755)
        if made < 0 {
            throw KernelError(
                .system, "making the runtime directory", at: options.runtimeDirectory, code: made,
                remedy: "make it writable for the daemon")
        }
        try requireOwnDirectories(options)
        // Those of earlier versions could be read by everybody.
        chmod(nodeDirectory(options), nodeDirectoryMode)
        let file = try lockFile(path(options), options)
        // The content serves the message below only; the lock is what counts.
        let text = Array("\(getpid())\n".utf8)
        ftruncate(file.raw, 0)
        _ = pwrite(file.raw, text, text.count, 0)
        guard let pins else { return NodeLock(file: file, directory: nil) }
        let raw = mesh_open(pins)
        guard raw >= 0 else {
            throw KernelError(.pinRefused, "opening the pin directory", at: pins, code: raw, remedy: "run as root")
        }
        let directory = Descriptor(adopting: raw)
        guard mesh_lock_exclusive(raw) == 0 else { throw refusal(options, at: pins, owner: nil) }
        return NodeLock(file: file, directory: directory)
    }

    /// Removes what a daemon leaves in the run directory, the lock's file last; by the lock's holder.
    static func removeFiles(_ options: CaptureOptions) {
        let directory = nodeDirectory(options)
        for socket in ["identity.sock", "handover.sock"] { unlink("\(directory)/\(socket)") }
        rmdir(directory)
        unlink(path(options))
    }

    private static func lockFile(_ path: String, _ options: CaptureOptions) throws(KernelError) -> Descriptor {
        while true {
            let raw = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0o600)
            guard raw >= 0 else {
                throw KernelError(
                    .system, "opening the lock file", at: path,
                    cause: errno == ELOOP ? "it is a symbolic link" : errorText(errno),
                    remedy: errno == ELOOP ? "find out who made it, and remove it" : "make it writable for the daemon")
            }
            let file = Descriptor(adopting: raw)
            try makeOwn(raw, path)
            guard mesh_lock_exclusive(raw) == 0 else {
                let owner = Files.read(path).value.flatMap { text in Int32(text.prefix { $0.isNumber }) }
                // Who wrote it may be gone, and another have the lock.
                throw refusal(options, at: path, owner: owner.flatMap { kill($0, 0) == 0 || errno == EPERM ? $0 : nil })
            }
            // An uninstall may have removed the file between the two calls: then this lock is nobody else's.
            var inode: UInt64 = 0
            if mesh_inode(raw, &inode) == 0, Files.inode(path) == inode { return file }
        }
    }

    /// A lock file that others can open is one that others can hold.
    private static func makeOwn(_ raw: Int32, _ path: String) throws(KernelError) {
        var status = stat()
        fstat(raw, &status)
        let isFile = status.st_mode & S_IFMT == S_IFREG
        guard isFile, status.st_uid == geteuid() else {
            throw KernelError(
                .system, "taking the lock of the node", at: path,
                cause: isFile ? "the file belongs to user \(status.st_uid)" : "it is no regular file",
                remedy: "find out who made it, and remove it")
        }
        fchmod(raw, 0o600)
    }

    private static func refusal(_ options: CaptureOptions, at path: String, owner: Int32?) -> KernelError {
        KernelError(
            .alreadyRunning(pid: owner), "starting the daemon of node \(options.nodeName)", at: path,
            cause: owner.map { "process \($0) already runs under this node name" }
                ?? "another process already runs under this node name",
            remedy: "stop it, replace it by starting culvert-node with --takeover, or use another --node-name")
    }
}
