internal import CMeshSystem
internal import Glibc

/// Small files under /proc, /sys and bpffs, without Foundation. Functions return a negated errno as the house does.
enum Files {
    static func read(_ path: String, limit: Int = 1 << 20) -> Result<String, SmallError> {
        let raw = open(path, O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { return .failure(SmallError(code: -errno)) }
        defer { mesh_close(raw) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16384)
        while bytes.count < limit {
            let count = Glibc.read(raw, &chunk, chunk.count)
            if count < 0 { return .failure(SmallError(code: -errno)) }
            if count == 0 { break }
            bytes += chunk.prefix(count)
        }
        return .success(String(decoding: bytes, as: UTF8.self))
    }

    /// Writes in one call, as sysctls and cgroup files demand. 0 or a negated errno.
    static func write(_ text: String, to path: String) -> Int32 {
        let raw = open(path, O_WRONLY | O_CLOEXEC)
        guard raw >= 0 else { return -errno }
        defer { mesh_close(raw) }
        let bytes = Array(text.utf8)
        return Glibc.write(raw, bytes, bytes.count) == bytes.count ? 0 : -errno
    }

    /// - Parameter type: which entries, by readdir(3)'s d_type.
    static func names(in directory: String, where type: (UInt8) -> Bool = { _ in true }) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." && type(entry.pointee.d_type) { names.append(name) }
        }
        return names.sorted()
    }

    /// The paths of the directories in a directory.
    static func directories(in directory: String) -> [String] {
        names(in: directory, where: { $0 == UInt8(DT_DIR) }).map { "\(directory)/\($0)" }
    }

    /// Makes a directory and those above it. 0 or a negated errno.
    static func makeDirectories(_ path: String, mode: mode_t) -> Int32 {
        var partial = ""
        for piece in path.split(separator: "/") {
            partial += "/" + piece
            if mkdir(partial, mode) != 0 && errno != EEXIST { return -errno }
        }
        return 0
    }

    /// Removes a directory of files and directories, as far as it goes.
    static func removeTree(_ path: String) {
        for name in names(in: path) {
            let child = path + "/" + name
            if unlink(child) != 0 { removeTree(child) }
        }
        rmdir(path)
    }

    static func inode(_ path: String) -> UInt64? {
        var status = stat()
        return stat(path, &status) == 0 ? UInt64(status.st_ino) : nil
    }

    /// The path with symbolic links resolved; nil when it does not exist.
    static func realPath(_ path: String) -> String? {
        guard let resolved = realpath(path, nil) else { return nil }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    static func fileSystemType(_ path: String) -> UInt64? {
        var type: UInt64 = 0
        return mesh_file_system_type(path, &type) == 0 ? type : nil
    }
}

/// A negated errno as an error.
struct SmallError: Error { let code: Int32 }

extension Result where Failure == SmallError {
    var value: Success? { try? get() }
}
