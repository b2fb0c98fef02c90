/// Where cgroup2 is mounted: alone, beside version 1 (hybrid), or nowhere.
struct CgroupMount: Hashable, Sendable {
    enum Layout: String, Sendable { case unified, hybrid, legacy }

    let path: String
    /// The cgroup this mount shows as its root; `/` unless the mount was made inside a cgroup namespace.
    let root: String

    private static let cgroup2Magic: UInt64 = 0x6367_7270

    static func isCgroup2(_ path: String) -> Bool { Files.fileSystemType(path) == cgroup2Magic }

    static var layout: Layout {
        if isCgroup2("/sys/fs/cgroup") { return .unified }
        return find() == nil ? .legacy : .hybrid
    }

    /// The first cgroup2 mount of /proc/self/mountinfo (proc_pid_mountinfo(5)), that at /sys/fs/cgroup first of all.
    static func find() -> CgroupMount? {
        let mounts = all()
        return mounts.first { $0.path == "/sys/fs/cgroup" } ?? mounts.first
    }

    /// The innermost cgroup2 mount that holds a path.
    static func holding(_ path: String) -> CgroupMount? {
        all().filter { path == $0.path || path.hasPrefix($0.path + "/") }.max { $0.path.count < $1.path.count }
    }

    static func all() -> [CgroupMount] {
        guard let text = Files.read("/proc/self/mountinfo").value else { return [] }
        return parse(text)
    }

    static func parse(_ mountinfo: String) -> [CgroupMount] {
        mountinfo.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            guard let separator = fields.firstIndex(of: "-"), separator + 1 < fields.count, separator >= 6,
                fields[separator + 1] == "cgroup2"
            else { return nil }
            return CgroupMount(path: String(fields[4]), root: String(fields[3]))
        }
    }

    /// The directory to attach to: the one asked for, or the root of the mount found.
    static func attachPoint(_ options: CaptureOptions) throws(KernelError) -> String {
        let remedy = "mount -t cgroup2 none /sys/fs/cgroup/unified (after mkdir), or boot with cgroup v2"
        guard let wanted = options.cgroupPath else {
            if let found = find() { return found.path }
            throw KernelError(
                .cgroupUnavailable, "looking for cgroup2", at: "/proc/self/mountinfo", cause: "cgroup2 is not mounted",
                remedy: remedy)
        }
        guard let resolved = Files.realPath(wanted) else {
            throw KernelError(
                .cgroupUnavailable, "opening the cgroup", at: wanted, cause: "there is no such directory",
                remedy: "make it with mkdir, or leave out --cgroup")
        }
        guard isCgroup2(resolved) else {
            throw KernelError(
                .cgroupUnavailable, "opening the cgroup", at: wanted, cause: "it is not on a cgroup2 file system",
                remedy: find().map { "use a directory under \($0.path)" } ?? remedy)
        }
        return resolved
    }
}
