internal import CMeshABI
internal import Glibc

/// Takes over what a daemon of another ABI version captured: maps are made anew, the entries of `pods` and `names`
/// copied, links moved. No moment passes without capture, because a link is never taken away:
///
///     1. the new maps hold every workload of the old ones, with the listeners where a running daemon hands them over;
///     2. the pins of the links move to the new directory (a rename), still with the old programs over the old maps;
///     3. the connect hooks get the new programs by compare-and-swap, each event running wholly the old or the new one;
///     4. the old directory goes; the lookup programs follow one by one as the workloads are attached again.
///
/// Until it follows, an old lookup program steers by the old maps: to the same listeners where they were handed over,
/// else to nobody, that is, it refuses. A daemon that dies in between leaves both directories, and the next one goes on
/// where it stopped: what is copied or moved already is found so.
///
/// Counters, rules, exclusions, DNS capture and whatever else the maps held begin anew.
struct Migration {
    let pins: Pins
    let objects: CaptureObjects
    /// Handed over by a running daemon, by the inode of the namespace.
    var listeners: [UInt64: CaptureListeners] = [:]

    /// Steps 1 and 2.
    func prepare() throws(KernelError) {
        for directory in pins.otherVersions {
            guard let version = PinnedVersion(directory) else { continue }
            var slots = Set(objects.pods.keys.compactMap { objects.pods.value(for: $0)?.slot })
            var moved: [String: String] = [:]
            for (cookie, var entry) in version.entries {
                let before = Pins.lookupName(slot: entry.pod.slot)
                if let copied = objects.pods.value(for: cookie) {
                    moved[before] = Pins.lookupName(slot: copied.slot)
                    continue
                }
                if slots.contains(entry.pod.slot) { entry.pod.slot = try freeSlot(besides: slots) }
                slots.insert(entry.pod.slot)
                moved[before] = Pins.lookupName(slot: entry.pod.slot)
                if let name = entry.name { try objects.names.set(name, for: cookie) }
                if let handed = listeners[UInt64(entry.pod.namespace_inode)] {
                    try objects.setListeners(handed, slot: entry.pod.slot)
                }
                try objects.statistics.make(entry.pod.slot)
                try objects.pods.set(entry.pod, for: cookie)
            }
            for link in version.links {
                let target = pins.path(moved[link] ?? link)
                if Files.inode(target) != nil || rename("\(directory)/\(link)", target) == 0 { continue }
                throw KernelError(
                    .pinRefused, "moving a link to the pins of this version", at: target, code: errno,
                    remedy: "check that the path is on a writable bpffs")
            }
        }
    }

    /// Step 4, once the connect hooks run the new programs.
    func finish() {
        for directory in pins.otherVersions {
            PinnedVersion.endShortcuts(directory)
            Files.removeTree(directory)
        }
    }

    private func freeSlot(besides used: Set<UInt32>) throws(KernelError) -> UInt32 {
        if let slot = (0..<UInt32(CaptureConstants.maximumWorkloads)).first(where: { !used.contains($0) }) {
            return slot
        }
        throw KernelError(
            .limitReached, "taking over the workloads of another version", at: pins.nodeDirectory,
            cause: "\(used.count) workloads are captured already", remedy: "spread the workloads over more nodes")
    }
}
