internal import CMeshABI

/// Where the node's agent runs, by which its health probes are known: in the cgroup that was named, or in those where a
/// kubelet usually runs. A service that is restarted gets a new cgroup of the same path, so they are looked for again.
struct AgentCgroups: Sendable {
    /// Directories of cgroup2, which need not exist.
    let paths: [String]

    /// Below the root of cgroup2: systemd's service as packages and installers name it, and the older slices.
    private static let usual = [
        "system.slice/kubelet.service", "kubelet.slice/kubelet.service", "runtime.slice/kubelet.service",
        "podruntime.slice/kubelet.service",
    ]

    init(_ options: CaptureOptions, attachPoint: String) throws(KernelError) {
        guard let wanted = options.kubeletCgroup else {
            let mount = CgroupMount.holding(attachPoint)?.path ?? attachPoint
            paths = Self.usual.map { "\(mount)/\($0)" }.filter { Self.isInside($0, attachPoint) }
            return
        }
        func refusal(_ cause: String, _ remedy: String) -> KernelError {
            KernelError(.cgroupUnavailable, "opening the kubelet's cgroup", at: wanted, cause: cause, remedy: remedy)
        }
        guard let resolved = Files.realPath(wanted) else {
            throw refusal(
                "there is no such directory", "see /proc/PID/cgroup of the kubelet, or leave out --kubelet-cgroup")
        }
        guard CgroupMount.isCgroup2(resolved) else {
            throw refusal(
                "it is not on a cgroup2 file system", "use a directory under \(CgroupMount.find()?.path ?? "cgroup2")")
        }
        guard Self.isInside(resolved, attachPoint) else {
            throw refusal(
                "the hooks at \(attachPoint) do not see it", "attach them to a cgroup that holds both: --cgroup PATH")
        }
        paths = [resolved]
    }

    /// A process right at the attach point would make an agent of everything in it.
    private static func isInside(_ path: String, _ attachPoint: String) -> Bool {
        path.hasPrefix(attachPoint == "/" ? "/" : attachPoint + "/")
    }

    /// Writes those that exist now.
    func refresh(_ map: BPFMap<UInt32, culvert_cgroup>) {
        let found = paths.compactMap { path in
            Files.inode(path).map { culvert_cgroup(id: $0, level: Self.level(of: path), padding: 0) }
        }
        for index in 0..<CULVERT_MAX_AGENT_CGROUPS {
            let wanted = index < found.count ? found[Int(index)] : culvert_cgroup()
            if let stands = map.value(for: index), stands.id == wanted.id, stands.level == wanted.level { continue }
            _ = map.update(wanted, for: index)
        }
    }

    /// How many ancestors a cgroup has. What a private cgroup namespace hides above its root counts as well.
    private static func level(of path: String) -> UInt32 {
        guard let mount = CgroupMount.holding(path) else { return 0 }
        let below = path.dropFirst(mount.path.count).split(separator: "/")
        return UInt32(mount.root.split(separator: "/").count + below.count)
    }
}
