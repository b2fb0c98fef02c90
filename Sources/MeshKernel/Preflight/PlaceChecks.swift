/// Where capture attaches and keeps what must outlive the daemon.
enum PlaceChecks {
    private static let hooks: [PreflightReport.Use] = [.l0, .l1, .l2]

    static func all(_ context: PreflightContext) -> [PreflightReport.Check] { cgroups(context) + [bpffs(context)] }

    private static func cgroups(_ context: PreflightContext) -> [PreflightReport.Check] {
        let probe = Probe(.places, "cgroup2", "cgroup2", hooks)
        let whole = Probe(.places, "cgroup.namespace", "the whole cgroup tree", hooks)
        let path: String
        do throws(KernelError) { path = try CgroupMount.attachPoint(context.options) } catch {
            let remedy =
                context.options.cgroupPath == nil ? Remedy.unifiedCgroups(context.distribution) : error.remedy
            return [
                probe.found(.fail, "\(error.place): \(error.cause)\(versionOne)", remedy: remedy),
                whole.found(.unknown, "not looked at: there is no cgroup2 to look at"),
            ]
        }
        let layout =
            switch CgroupMount.layout {
            case .unified: "version 2 alone"
            case .hybrid: "hybrid: version 1 beside it"
            case .legacy: "mounted apart; the system itself uses version 1"
            }
        let found = probe.ok("\(path) (\(layout))")
        // Every cgroup but the real root has this file.
        guard let mount = CgroupMount.holding(path), Files.inode(mount.path + "/cgroup.type") != nil else {
            return [found, whole.ok("its root is the root of all cgroups")]
        }
        let chosen = context.options.cgroupPath != nil
        return [
            found,
            whole.found(
                chosen ? .warn : .fail,
                "\(mount.path) shows a part only (a private cgroup namespace, or a bind mount of \(mount.root))",
                cost: chosen ? "processes outside of \(path) are not captured" : "hooks there see no workload",
                remedy: "mount the host's cgroup2 into the container and name it with --cgroup"),
        ]
    }

    private static var versionOne: String {
        let mounts = Files.read("/proc/self/mountinfo").value ?? ""
        return mounts.contains(" - cgroup ") ? " (version 1 is)" : ""
    }

    private static func bpffs(_ context: PreflightContext) -> PreflightReport.Check {
        let probe = Probe(.places, "bpffs", "bpf file system", hooks)
        do throws(KernelError) {
            let path = context.options.bpffsPath
            try Pins.requireBPFFS(at: path)
            try Pins.requireSafePlace(at: path, owners: OwnDirectory.trusted)
            guard Pins.isWritableByAll(path) else { return probe.ok(path) }
            return probe.found(
                .warn, "\(path) can be written by every user",
                cost: "who makes \(path)/culvert before the node proxy does keeps it from starting",
                remedy: "chmod 0700 \(path), and mount it with -o mode=0700 from now on")
        } catch {
            return probe.found(.fail, "\(error.place): \(error.cause)", remedy: error.remedy)
        }
    }
}
