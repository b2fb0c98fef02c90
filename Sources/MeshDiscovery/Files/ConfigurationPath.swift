import Foundation
import Glibc

/// Reads the files that a path means: the file itself, or every `*.yaml` and `*.yml` of a directory in the order of
/// their names. Hidden names are left out: editors and ConfigMap volumes keep their own things there.
struct ConfigurationPath {
    let path: String

    /// The folder that relative paths inside the configuration start from.
    var folder: String {
        let isFolder = (try? Self.kind(of: path)) == .folder
        return isFolder ? path : URL(fileURLWithPath: path).deletingLastPathComponent().path
    }

    /// - Returns: the files, and those that cannot be accepted as errors.
    /// - Throws: what could not be read at all.
    func read() throws(ConfigurationFailure) -> (files: [ConfigurationFile], problems: [ConfigurationError]) {
        // A file may go, or a symlink be swapped, between the listing and the opening: then there is a new listing.
        for _ in 0..<3 {
            if let files = try? readOnce() { return files }
        }
        return try readOnce()
    }

    private func readOnce() throws(ConfigurationFailure) -> (
        files: [ConfigurationFile], problems: [ConfigurationError]
    ) {
        var files: [ConfigurationFile] = []
        var problems: [ConfigurationError] = []
        for name in try names() {
            switch try Self.read(name) {
            case .bytes(let bytes): files.append(ConfigurationFile(name: name, bytes: bytes))
            case .refused(let message):
                problems.append(ConfigurationError(file: name, line: 0, column: 0, message: message))
            }
        }
        return (files, problems)
    }

    /// The paths of the files, without opening them.
    func names() throws(ConfigurationFailure) -> [String] {
        guard try Self.kind(of: path) == .folder else { return [path] }
        guard let directory = opendir(path) else { throw Self.failure(path) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasPrefix(".") || !(name.hasSuffix(".yaml") || name.hasSuffix(".yml")) { continue }
            names.append(path.hasSuffix("/") ? path + name : "\(path)/\(name)")
            if names.count > ConfigurationLimits.files {
                let reason = "more than \(ConfigurationLimits.files) files"
                throw .unreadable(path: path, reason: reason)
            }
        }
        return names.sorted()
    }

    private enum FileKind { case folder, file, other }

    private static func kind(of path: String) throws(ConfigurationFailure) -> FileKind {
        var status = stat()
        guard stat(path, &status) == 0 else { throw failure(path) }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: return .folder
        case S_IFREG: return .file
        default: return .other
        }
    }

    private enum FileContents {
        case bytes([UInt8])
        case refused(String)
    }

    private static func read(_ path: String) throws(ConfigurationFailure) -> FileContents {
        // Without O_NONBLOCK a FIFO with a configuration's name would hang us.
        let descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure(path) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw failure(path) }
        guard status.st_mode & S_IFMT == S_IFREG else { return .refused("expected a regular file") }
        // One byte more than there should be tells a file that grows, or whose size is not known, from its end.
        let room = min(max(Int(status.st_size), 4096), ConfigurationLimits.fileBytes) + 1
        var bytes: [UInt8] = []
        while bytes.count <= ConfigurationLimits.fileBytes {
            let part = try chunk(of: descriptor, upTo: room, path: path)
            if part.isEmpty { return .bytes(bytes) }
            bytes += part
        }
        return .refused("expected at most \(ConfigurationLimits.fileBytes) bytes, found more")
    }

    private static func chunk(
        of descriptor: Int32, upTo room: Int, path: String
    ) throws(ConfigurationFailure) -> [UInt8] {
        var result = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: room) { buffer, count in
            result = Glibc.read(descriptor, buffer.baseAddress!, room)
            count = max(result, 0)
        }
        if result < 0 { throw failure(path) }
        return bytes
    }

    private static func failure(_ path: String) -> ConfigurationFailure {
        let code = errno
        return .unreadable(path: path, reason: String(cString: strerror(code)))
    }
}

extension ConfigurationReading {
    /// Reads a file, or a directory of `*.yaml` and `*.yml`.
    ///
    /// - Throws: `ConfigurationFailure.unreadable` when the path, or a file in it, cannot be read. What is wrong inside
    ///   the files is in `errors`.
    public init(path: String) throws(ConfigurationFailure) {
        let (files, problems) = try ConfigurationPath(path: path).read()
        self.init(parsing: files, path: path, problems: problems)
    }
}
