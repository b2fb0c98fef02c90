import Foundation

/// A cgroup2 folder. Labs make their own subtree, so that hooks attached there concern nobody else on the machine.
struct Cgroup: Sendable {
    let path: String

    /// Where cgroup2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid machine.
    static func mountPoint() throws(LabError) -> String {
        // proc(5): fields before " - " are ours, the mount point is the fifth; after it comes the file system's type.
        let table = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        for line in table.split(separator: "\n") {
            guard let separator = line.range(of: " - ") else { continue }
            guard line[separator.upperBound...].hasPrefix("cgroup2 ") else { continue }
            let fields = line[..<separator.lowerBound].split(separator: " ")
            if fields.count > 4 { return fields[4].replacingOccurrences(of: "\\040", with: " ") }
        }
        throw LabError(.setUp, "cgroup2 is not mounted; try: mount -t cgroup2 none /sys/fs/cgroup/unified")
    }

    func create() throws(LabError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw LabError(.setUp, "cannot make the cgroup \(path): \(error.localizedDescription)")
        }
    }

    /// This group and every group below it, deepest first.
    private var subtree: [String] {
        guard FileManager.default.fileExists(atPath: path) else { return [] }
        var folders = [path]
        for case let name as String in FileManager.default.enumerator(atPath: path) ?? .init() {
            var isFolder: ObjCBool = false
            let full = "\(path)/\(name)"
            if FileManager.default.fileExists(atPath: full, isDirectory: &isFolder), isFolder.boolValue {
                folders.append(full)
            }
        }
        return folders.sorted { $0.utf8.count > $1.utf8.count }
    }

    /// Every process in the subtree, our own never.
    var processes: [Int32] {
        subtree.flatMap { folder in
            let text = (try? String(contentsOfFile: "\(folder)/cgroup.procs", encoding: .utf8)) ?? ""
            return text.split(separator: "\n").compactMap { Int32($0) }
        }.filter { $0 > 0 && $0 != getpid() }
    }

    /// Kills what runs in the subtree and removes it. Blocks, five seconds at most.
    /// - Returns: whether it is gone.
    func remove(reaping reap: () -> Void = {}) -> Bool {
        let deadline = ContinuousClock.now + .seconds(5)
        while FileManager.default.fileExists(atPath: path) {
            for pid in processes { kill(pid, SIGKILL) }
            reap()
            for folder in subtree { rmdir(folder) }
            if ContinuousClock.now > deadline { return false }
            if FileManager.default.fileExists(atPath: path) { usleep(2000) }
        }
        return true
    }
}
