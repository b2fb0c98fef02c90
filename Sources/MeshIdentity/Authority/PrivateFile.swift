import Glibc

/// Small files that must be whole, and perhaps secret.
enum PrivateFile {
    /// No key or certificate chain is larger.
    static let limit = 1 << 20

    static func exists(_ path: String) throws(IdentityError) -> Bool {
        var status = stat()
        if stat(path, &status) == 0 { return true }
        let code = errno
        guard code == ENOENT else { throw failure(path, "cannot be looked at", code) }
        return false
    }

    /// The whole text. A secret must be ours and nobody else's.
    static func read(_ path: String, isSecret: Bool) throws(IdentityError) -> String {
        // Not blocking: opening a FIFO somebody put there must not hang the daemon.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw failure(path, "cannot be opened", errno) }
        defer { close(descriptor) }
        // Of the descriptor, not the path: it is this file that is read.
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure(path, "cannot be looked at", errno) }
        guard status.st_mode & S_IFMT == S_IFREG, status.st_size <= limit else {
            throw IdentityError(.file, "\(path) is not a regular file of at most 1 MiB")
        }
        if isSecret { try checkSecrecy(path, status) }
        var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
        var position = 0
        while position < bytes.count {
            let count = bytes.withUnsafeMutableBytes {
                Glibc.read(descriptor, $0.baseAddress! + position, $0.count - position)
            }
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure(path, "cannot be read", errno) }
            guard count > 0 else { break }
            position += count
        }
        return String(decoding: bytes[..<position], as: UTF8.self)
    }

    private static func checkSecrecy(_ path: String, _ status: stat) throws(IdentityError) {
        guard status.st_mode & 0o077 == 0 else {
            throw IdentityError(
                .permissions,
                "the key \(path) can be read or changed by others (mode \(String(status.st_mode & 0o777, radix: 8))): "
                    + "chmod 600 it if nobody did, otherwise replace the authority")
        }
        guard status.st_uid == 0 || status.st_uid == geteuid() else {
            throw IdentityError(
                .permissions, "the key \(path) belongs to user \(status.st_uid): chown it to the daemon's user")
        }
    }

    /// Makes `path` with all of `text` or not at all, and never in place of a file that is there.
    /// The caller holds the folder's lock.
    static func create(_ path: String, text: String, mode: mode_t) throws(IdentityError) {
        let draft = path + ".new"
        // Left by a daemon that died right here; nobody else writes it while we hold the lock.
        unlink(draft)
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw failure(path, "cannot be made", errno) }
        defer {
            close(descriptor)
            unlink(draft)
        }
        let bytes = Array(text.utf8)
        var position = 0
        while position < bytes.count {
            let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + position, $0.count - position) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure(path, "cannot be written", errno) }
            position += count
        }
        // Whatever the umask was.
        guard fchmod(descriptor, mode) == 0, fsync(descriptor) == 0 else {
            throw failure(path, "cannot be written", errno)
        }
        // A link, unlike a rename, fails when the name is taken.
        guard link(draft, path) == 0 else { throw failure(path, "cannot be made", errno) }
        let folder = open(FolderLock.parent(of: path), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if folder >= 0 {
            fsync(folder)
            close(folder)
        }
    }

    static func failure(_ path: String, _ what: String, _ code: Int32) -> IdentityError {
        let isDenied = code == EACCES || code == EPERM
        return IdentityError(isDenied ? .permissions : .file, "\(path) \(what): \(String(cString: strerror(code)))")
    }
}

/// An advisory lock on a folder: among daemons that make files in it. It ends with the process at the latest.
enum FolderLock {
    static func parent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// Runs `body` while nobody else is in here for the same folder. Others take milliseconds; after five seconds
    /// something is wrong.
    static func locked<R>(
        _ folder: String, _ body: () throws(IdentityError) -> R
    ) throws(IdentityError) -> R {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw PrivateFile.failure("the folder \(folder)", "cannot be opened", errno) }
        defer { close(descriptor) }
        for _ in 0..<250 {
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return try body() }
            guard errno == EWOULDBLOCK || errno == EINTR else { break }
            usleep(20_000)
        }
        throw PrivateFile.failure("the folder \(folder)", "cannot be locked", errno)
    }
}
