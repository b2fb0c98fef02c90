internal import Glibc
internal import MeshModel

/// What is remembered of a namespace while it is captured by rules: what a later daemon and `culvert uninstall` need.
/// One file a namespace, named by its inode.
struct RedirectRecord: Hashable, Sendable {
    var workload: ObjectName
    /// The namespace.
    let inode: UInt64
    /// As found before the first change.
    let settings: NamespaceSettings
    /// As found before the first rule.
    let live: [LiveConnection]

    private static let header = "culvert capture record 1"

    init(workload: ObjectName, inode: UInt64, settings: NamespaceSettings, live: [LiveConnection]) {
        self.workload = workload
        self.inode = inode
        self.settings = settings
        self.live = live
    }

    var text: String {
        var lines = [
            Self.header, "namespace \(inode)", "workload \(workload)",
            "settings \(settings.accept) \(settings.reflect4) \(settings.reflect6)",
        ]
        lines += live.map { "live \($0.local) \($0.localPort) \($0.remote) \($0.remotePort)" }
        return lines.joined(separator: "\n") + "\n"
    }

    /// - Returns: nil for a text that is not a record of this version.
    init?(_ text: String) {
        var lines = text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        guard lines.count >= 4, lines.removeFirst().joined(separator: " ") == Self.header else { return nil }
        var inode: UInt64?
        var workload: ObjectName?
        var settings: NamespaceSettings?
        var live: [LiveConnection] = []
        for fields in lines {
            switch (fields[0], fields.count) {
            case ("namespace", 2): inode = UInt64(fields[1])
            case ("workload", 2): workload = ObjectName(fields[1])
            case ("settings", 4):
                let values = fields.dropFirst().compactMap { UInt8($0) }
                if values.count == 3 {
                    settings = NamespaceSettings(accept: values[0], reflect4: values[1], reflect6: values[2])
                }
            case ("live", 5):
                guard let local = IPAddress(fields[1]), let localPort = UInt16(fields[2]),
                    let remote = IPAddress(fields[3]), let remotePort = UInt16(fields[4])
                else { return nil }
                live.append(LiveConnection(local: local, localPort: localPort, remote: remote, remotePort: remotePort))
            default: return nil
            }
        }
        guard let inode, let workload, let settings else { return nil }
        self.init(workload: workload, inode: inode, settings: settings, live: live)
    }
}

/// The records of one node, in `<run directory>/<node>/capture-<level>`, for root alone. Each is written beside its
/// place and renamed into it, so that a record is whole or absent. They describe namespaces, which a restart of the
/// machine ends, so nothing is forced to disk.
struct RedirectRecords: Sendable {
    let nodeDirectory: String
    let directory: String

    init(_ options: CaptureOptions, level: CaptureLevel) {
        nodeDirectory = "\(options.runtimeDirectory)/\(options.nodeName)"
        directory = "\(nodeDirectory)/capture-\(level)"
    }

    /// Whether a daemon at this level left its directory.
    var exist: Bool { Files.inode(directory) != nil }

    /// Whether it captures a namespace that is still there.
    var captureSomething: Bool {
        Files.names(in: directory).contains { name in UInt32(name).map { findNamespace(inode: $0) != nil } ?? false }
    }

    func make() throws(KernelError) {
        for (path, mode) in [(nodeDirectory, NodeLock.nodeDirectoryMode), (directory, 0o700)] {
            let code = Files.makeDirectories(path, mode: mode)
            if code < 0 { throw refusal("making the directory of records", path, code) }
        }
    }

    /// Whole records; what is not one is removed: the rules it stood for are then foreign to us.
    func load() -> [RedirectRecord] {
        Files.names(in: directory).compactMap { name in
            let path = "\(directory)/\(name)"
            if let record = Files.read(path, limit: 64 << 20).value.flatMap(RedirectRecord.init),
                name == "\(record.inode)"
            {
                return record
            }
            unlink(path)
            return nil
        }
    }

    func save(_ record: RedirectRecord) throws(KernelError) {
        let path = "\(directory)/\(record.inode)"
        let draft = "\(path).draft"
        let raw = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard raw >= 0 else { throw refusal("writing a record", draft, -errno) }
        let file = Descriptor(adopting: raw)
        let bytes = Array(record.text.utf8)
        guard write(file.raw, bytes, bytes.count) == bytes.count, rename(draft, path) == 0 else {
            let code = -errno
            unlink(draft)
            throw refusal("writing a record", path, code)
        }
    }

    func remove(_ inode: UInt64) { unlink("\(directory)/\(inode)") }

    /// The directory, when no namespace is left to put back, and the node's, when nothing else is in it.
    func finish() {
        for name in Files.names(in: directory) where name.hasSuffix(".draft") { unlink("\(directory)/\(name)") }
        if rmdir(directory) == 0 { rmdir(nodeDirectory) }
    }

    private func refusal(_ what: String, _ place: String, _ code: Int32) -> KernelError {
        KernelError(.system, what, at: place, code: code, remedy: "make --run-dir writable for the daemon")
    }
}
