internal import CMeshSystem
internal import Glibc

/// One daemon for one node name. Two locks that the kernel frees with the process, however it ends: a file of the run
/// directory, which says who has it, and the directory of the pins, which is what they protect; the second one also
/// keeps daemons apart that do not share a run directory, as in two containers.
struct NodeLock: Sendable {
    private let file: Descriptor
    /// nil at levels without pins.
    private let directory: Descriptor?

    static func path(_ options: CaptureOptions) -> String { "\(options.runtimeDirectory)/\(options.nodeName).lock" }

    /// - Parameter pins: the node's directory on the bpffs, which exists; nil at levels without one.
    static func take(_ options: CaptureOptions, pins: String?) throws(KernelError) -> NodeLock {
        let path = path(options)
        let made = Files.makeDirectories(options.runtimeDirectory, mode: 0o755)
        if made < 0 {
            throw KernelError(
                .system, "making the runtime directory", at: options.runtimeDirectory, code: made,
                remedy: "make it writable for the daemon")
        }
        let file = try lockFile(path, options)
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
        let directory = "\(options.runtimeDirectory)/\(options.nodeName)"
        for socket in ["identity.sock", "handover.sock"] { unlink("\(directory)/\(socket)") }
        rmdir(directory)
        unlink(path(options))
    }

    private static func lockFile(_ path: String, _ options: CaptureOptions) throws(KernelError) -> Descriptor {
        while true {
            let raw = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard raw >= 0 else {
                throw KernelError(
                    .system, "opening the lock file", at: path, code: errno, remedy: "make it writable for the daemon")
            }
            let file = Descriptor(adopting: raw)
            guard mesh_lock_exclusive(raw) == 0 else {
                let owner = Files.read(path).value.flatMap { text in Int32(text.prefix { $0.isNumber }) }
                throw refusal(options, at: path, owner: owner)
            }
            // An uninstall may have removed the file between the two calls: then this lock is nobody else's.
            var inode: UInt64 = 0
            if mesh_inode(raw, &inode) == 0, Files.inode(path) == inode { return file }
        }
    }

    private static func refusal(_ options: CaptureOptions, at path: String, owner: Int32?) -> KernelError {
        KernelError(
            .alreadyRunning(pid: owner), "starting the daemon of node \(options.nodeName)", at: path,
            cause: owner.map { "process \($0) already runs under this node name" }
                ?? "another process already runs under this node name",
            remedy: "stop it, replace it by starting culvert-node with --takeover, or use another --node-name")
    }
}
