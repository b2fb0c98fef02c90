import Glibc

/// Every directory in which the kernel looks a name up on the way to a path, following symbolic links as it does.
///
/// Watching these names catches every way a path can come to mean something else: a file renamed over it, a symlink
/// swapped anywhere above it (a ConfigMap's `..data`), a directory removed and made again.
struct LookupChain {
    /// Names by the directory they are looked up in. Directories are free of symlinks.
    private(set) var names: [String: Set<String>] = [:]
    /// The path without symlinks; nil when something on the way does not exist.
    private(set) var resolved: String?

    /// As many links as the kernel follows (path_resolution(7)).
    private static let maximumLinks = 40

    init(_ path: String) {
        var pending = Self.components(path)
        var directory = ""
        if !path.hasPrefix("/") {
            guard let current = getcwd(nil, 0) else { return }
            directory = String(cString: current)
            free(current)
            if directory == "/" { directory = "" }
        }
        var links = 0
        while !pending.isEmpty {
            let name = pending.removeFirst()
            if name == ".." {
                directory = directory.lastIndex(of: "/").map { String(directory[..<$0]) } ?? ""
                continue
            }
            names[directory.isEmpty ? "/" : directory, default: []].insert(name)
            let candidate = "\(directory)/\(name)"
            var status = stat()
            guard lstat(candidate, &status) == 0 else { return }
            guard status.st_mode & S_IFMT == S_IFLNK else {
                directory = candidate
                continue
            }
            links += 1
            guard links <= Self.maximumLinks, let target = Self.target(of: candidate) else { return }
            if target.hasPrefix("/") { directory = "" }
            pending = Self.components(target) + pending
        }
        resolved = directory.isEmpty ? "/" : directory
    }

    private static func components(_ path: String) -> [String] {
        path.split(separator: "/").map(String.init).filter { $0 != "." }
    }

    private static func target(of link: String) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            let count = readlink(link, buffer.baseAddress!, buffer.count)
            guard count > 0 else { return nil }
            return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }
}
