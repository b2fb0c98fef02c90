internal import Glibc

/// The cgroup by which the connect hooks know the proxy. An application cannot forge it: the hook looks at the cgroup
/// of the task that calls connect().
struct ProxyCgroup: Hashable, Sendable {
    /// The cgroup's id; nil when the process is outside the captured subtree, where no hook sees it.
    let id: UInt64?
    /// Its directory; nil with `id`.
    let path: String?
    /// Made by us below the attach point, with where the process came from; nil when its own cgroup served.
    let child: String?
    let previous: String?

    static func childPath(attachPoint: String, nodeName: String) -> String {
        "\(attachPoint)/culvert-node.\(nodeName)"
    }

    /// Finds a cgroup in which `process` is alone. Where it shares one with others inside the captured subtree (the
    /// attach point itself above all), it moves to a child of its own: exempting a shared cgroup would let the others
    /// out of the mesh.
    /// - Parameter hooked: it must be inside the captured subtree, where the hooks see it.
    static func settle(
        process: pid_t, attachPoint: String, nodeName: String, hooked: Bool = false
    ) throws(KernelError) -> ProxyCgroup {
        let own = directory(of: process, attachPoint: attachPoint)
        if let own {
            let inside = own == attachPoint || own.hasPrefix(attachPoint + "/")
            if !inside && !hooked && attachPoint != "/" {
                return ProxyCgroup(id: nil, path: nil, child: nil, previous: nil)
            }
            if inside, own != attachPoint, isAlone(process, in: own), let id = Files.inode(own) {
                return ProxyCgroup(id: id, path: own, child: nil, previous: nil)
            }
        }
        let child = childPath(attachPoint: attachPoint, nodeName: nodeName)
        let remedy = "run as root with a writable cgroup2, or start the daemon in a cgroup of its own"
        if mkdir(child, 0o755) != 0 && errno != EEXIST {
            throw KernelError(.cgroupUnavailable, "making the proxy's cgroup", at: child, code: errno, remedy: remedy)
        }
        let code = Files.write("\(process)", to: child + "/cgroup.procs")
        guard code == 0, let id = Files.inode(child) else {
            throw KernelError(.cgroupUnavailable, "moving to the proxy's cgroup", at: child, code: code, remedy: remedy)
        }
        return ProxyCgroup(id: id, path: child, child: child, previous: own)
    }

    /// What a daemon that is gone made.
    static func remove(_ options: CaptureOptions) {
        guard let attachPoint = try? CgroupMount.attachPoint(options) else { return }
        rmdir(childPath(attachPoint: attachPoint, nodeName: options.nodeName))
    }

    /// Goes back to where the process was and removes the child.
    func leave(process: pid_t) {
        guard let child else { return }
        if let previous { _ = Files.write("\(process)", to: previous + "/cgroup.procs") }
        rmdir(child)
    }

    /// The directory of a process's cgroup in the mount that holds the attach point; nil when that mount does not show it
    /// (a private cgroup namespace).
    private static func directory(of process: pid_t, attachPoint: String) -> String? {
        guard let mount = CgroupMount.holding(attachPoint),
            let text = Files.read("/proc/\(process)/cgroup").value,
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("0::") })
        else { return nil }
        let path = String(line.dropFirst(3))
        if path == "/" { return mount.path }
        let directory = mount.path + path
        return Files.inode(directory) == nil ? nil : directory
    }

    private static func isAlone(_ process: pid_t, in directory: String) -> Bool {
        guard let text = Files.read(directory + "/cgroup.procs").value else { return false }
        return text.split(separator: "\n").allSatisfy { $0 == "\(process)" }
    }
}
