internal import CMeshSystem
internal import Glibc

/// One daemon for one node name: a lock file that the kernel frees with the process, however it ends.
struct NodeLock: Sendable {
    private let file: Descriptor

    static func take(_ options: CaptureOptions) throws(KernelError) -> NodeLock {
        let path = "\(options.runtimeDirectory)/\(options.nodeName).lock"
        let made = Files.makeDirectories(options.runtimeDirectory, mode: 0o755)
        if made < 0 {
            throw KernelError(
                .system, "making the runtime directory", at: options.runtimeDirectory, code: made,
                remedy: "make it writable for the daemon")
        }
        let raw = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard raw >= 0 else {
            throw KernelError(
                .system, "opening the lock file", at: path, code: errno, remedy: "make it writable for the daemon")
        }
        let file = Descriptor(adopting: raw)
        let code = mesh_lock_exclusive(raw)
        guard code == 0 else {
            let owner = Files.read(path).value.flatMap { text in Int32(text.prefix { $0.isNumber }) }
            throw KernelError(
                .alreadyRunning(pid: owner), "starting the daemon of node \(options.nodeName)", at: path,
                cause: owner.map { "process \($0) already runs under this node name" }
                    ?? "another process already runs under this node name",
                remedy: "stop it, or give this one another --node-name")
        }
        // The content serves the message above only; the lock is what counts.
        let text = Array("\(getpid())\n".utf8)
        ftruncate(raw, 0)
        _ = pwrite(raw, text, text.count, 0)
        return NodeLock(file: file)
    }
}
