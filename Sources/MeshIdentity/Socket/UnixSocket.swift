import Glibc

/// Unix stream sockets that never block.
enum UnixSocket {
    /// A connection to whoever listens on `path`, complete or refused at once.
    static func connect(_ path: String) throws(IdentityError) -> Int32 {
        let descriptor = try open()
        guard try withAddress(path, { Glibc.connect(descriptor, $0, $1) }) == 0 else {
            let code = errno
            close(descriptor)
            // A full backlog is EAGAIN: somebody is there.
            throw IdentityError(.unavailable, "\(path): \(String(cString: strerror(code)))")
        }
        return descriptor
    }

    /// Listens on `path` for every user. A socket file on which nobody listens is replaced; anything else there is an
    /// error. The folder is made when missing, and must not let others replace the file.
    static func listen(_ path: String) throws(IdentityError) -> Int32 {
        let folder = FolderLock.parent(of: path)
        // EEXIST is as good as made; anything else shows when the folder is opened.
        // Not for others to open: they could hold the lock that is taken here.
        mkdir(folder, 0o711)
        return try FolderLock.locked(folder) { () throws(IdentityError) in
            try checkFolder(folder)
            try removeStale(path)
            let descriptor = try open()
            // Made unreachable first: the mode is set before anybody can connect.
            guard
                try withAddress(path, { bind(descriptor, $0, $1) }) == 0, chmod(path, 0o666) == 0,
                Glibc.listen(descriptor, 128) == 0
            else {
                let code = errno
                close(descriptor)
                throw PrivateFile.failure("the identity socket \(path)", "cannot be made", code)
            }
            return descriptor
        }
    }

    private static func checkFolder(_ folder: String) throws(IdentityError) {
        var status = stat()
        guard stat(folder, &status) == 0 else {
            throw PrivateFile.failure("the folder \(folder)", "cannot be looked at", errno)
        }
        guard status.st_mode & 0o022 == 0, status.st_uid == 0 || status.st_uid == geteuid() else {
            throw IdentityError(
                .permissions,
                "the folder \(folder) of the identity socket can be written by others, who could pose as the node: "
                    + "chown it to the daemon's user and chmod 711")
        }
    }

    private static func removeStale(_ path: String) throws(IdentityError) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw IdentityError(.file, "\(path) exists and is not a socket: move it away")
        }
        let probe = try open()
        defer { close(probe) }
        let result = try withAddress(path) { Glibc.connect(probe, $0, $1) }
        guard result != 0, errno == ECONNREFUSED else {
            throw IdentityError(.inUse, "another daemon listens on \(path)")
        }
        unlink(path)
    }

    private static func open() throws(IdentityError) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, kind, 0)
        guard descriptor >= 0 else {
            throw IdentityError(.unavailable, "cannot make a socket: \(String(cString: strerror(errno)))")
        }
        return descriptor
    }

    private static func withAddress<R>(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R
    ) throws(IdentityError) -> R {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard !bytes.isEmpty, bytes.count < room, !bytes.contains(0) else {
            throw IdentityError(.file, "\(path) is not a socket path of 1 to \(room - 1) bytes")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// Monotonic milliseconds.
    static func milliseconds() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
    }
}
