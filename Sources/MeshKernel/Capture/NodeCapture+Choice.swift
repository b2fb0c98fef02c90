internal import CMeshSystem

extension NodeCapture {
    struct Choice {
        let level: CaptureLevel
        var explanation = ""
    }

    /// The level to capture at. A node never changes its level over captured workloads: in between they would be in
    /// clear text, or captured twice.
    static func choose(_ wanted: CaptureLevel?, _ options: CaptureOptions) throws(KernelError) -> Choice {
        try NodeLock.requireOwnDirectories(options)
        let left = try leftLevel(options)
        if let wanted {
            if let left, left.family != wanted.family {
                throw KernelError(
                    .levelUnavailable(wanted), "starting capture", at: "level \(wanted)",
                    cause: "an earlier daemon of node \(options.nodeName) captures at \(left)",
                    remedy:
                        "run 'culvert uninstall --node-name \(options.nodeName)' with its paths first, or ask for \(left)"
                )
            }
            try requireCapabilities(for: wanted)
            return Choice(level: wanted)
        }
        if let left {
            try requireCapabilities(for: left)
            guard left == .l0 else {
                return Choice(level: left, explanation: "an earlier daemon of this node captures at it")
            }
            // The pins do not tell which of the family it was, so it is the better one that this kernel can do.
            do throws(KernelError) {
                _ = try BPFObject.load(BPFObjects.device, named: "device", constants: ())
                return Choice(level: .l0)
            } catch {
                return Choice(level: .l1, explanation: "lookup programs do not see the arrival device: \(error.cause)")
            }
        }
        try requirePaths(options)
        let report = Preflight.run(options)
        let missing = report.obstacles(to: .l0).map { "\($0.title): \($0.detail)" }.joined(separator: "; ")
        guard let level = report.level else {
            // Nothing works here: what the best level lacks is what the operator needs to know.
            try requireCapabilities(for: .l0)
            throw KernelError(
                .levelUnavailable(.l0), "starting capture", at: "this machine",
                cause: "no level works: \(missing)", remedy: "see 'culvert preflight'")
        }
        return Choice(level: level, explanation: level == .l0 ? "" : missing)
    }

    /// Refuses a process that lacks what a level needs (nil: what any level needs), naming it: asked before anything is
    /// written to disk, too.
    public static func requireCapabilities(for level: CaptureLevel?) throws(KernelError) {
        let effective = Capability.effective
        let rules: [Capability] = [.netAdmin, .netRaw, .sysAdmin]
        let needed = level.map { $0 == .l3 ? rules : Capability.needed } ?? rules
        guard !needed.allSatisfy(effective.contains) else { return }
        // Asked for no level, all that the best one lacks: with the rest alone it would not be reached.
        let missing = (level == nil ? Capability.needed : needed).filter { !effective.contains($0) }.map(\.name)
        throw KernelError(
            .missingCapabilities(missing), "starting capture", at: "the daemon's process",
            cause: "it lacks \(missing.joined(separator: ", "))",
            remedy: "run as root, or grant the capabilities (container: securityContext.capabilities.add)")
    }

    /// At which level an earlier daemon of the node captures; nil: none does.
    private static func leftLevel(_ options: CaptureOptions) throws(KernelError) -> CaptureLevel? {
        for level in [CaptureLevel.l2, .l3] where RedirectRecords(options, level: level).captureSomething {
            return level
        }
        // A daemon that failed before its hooks were there captured nothing, whatever else it left.
        // Nor did what is not ours.
        let pins = try Pins(options)
        guard (try? pins.requireOwn()) != nil else { return nil }
        let directory = pins.nodeDirectory
        return Files.names(in: directory).contains { Files.inode("\(directory)/\($0)/connect4") != nil } ? .l0 : nil
    }

    /// A place that was named is a decision: its absence is an error, never a reason for a lesser level. (And nothing
    /// that others can do may be one.)
    private static func requirePaths(_ options: CaptureOptions) throws(KernelError) {
        if options.cgroupPath != nil { _ = try CgroupMount.attachPoint(options) }
        if options.bpffsPath != CaptureOptions(nodeName: options.nodeName).bpffsPath {
            try Pins.requireBPFFS(at: options.bpffsPath)
        }
        try Pins.requireSafePlace(at: options.bpffsPath)
    }
}

extension CaptureLevel {
    /// Levels of one family share maps, hooks and rules, so a daemon may go from one to the other.
    fileprivate var family: CaptureLevel { self == .l1 ? .l0 : self }
}
