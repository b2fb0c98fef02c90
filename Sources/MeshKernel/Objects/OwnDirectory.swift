internal import Glibc

/// Directories that nobody but the daemon may change: in any other one somebody could plant files, rename ours away, or
/// lead us elsewhere by a symbolic link.
enum OwnDirectory {
    /// What is wrong with a directory; nil: nothing, or it does not exist.
    /// - Parameters:
    ///   - owners: the users it may belong to.
    ///   - isLinkAllowed: it was named by the operator, who may have put a link there.
    static func complaint(about path: String, owners: Set<uid_t>, isLinkAllowed: Bool = false) -> String? {
        var status = stat()
        guard lstat(path, &status) == 0 else { return nil }
        if isLinkAllowed, status.st_mode & S_IFMT == S_IFLNK, owners.contains(status.st_uid) {
            guard stat(path, &status) == 0 else { return "it is a symbolic link to nothing" }
        }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: break
        case S_IFLNK: return "it is a symbolic link"
        default: return "it is no directory"
        }
        guard owners.contains(status.st_uid) else { return "it belongs to user \(status.st_uid)" }
        guard status.st_mode & 0o022 == 0 else {
            return "others than its owner may write there (mode \(String(status.st_mode & 0o7777, radix: 8)))"
        }
        return nil
    }

    /// The users whose directories below --run-dir are as good as ours.
    static var trusted: Set<uid_t> { [0, geteuid()] }
}
