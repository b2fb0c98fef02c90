internal import CBPF
internal import CMeshABI
internal import Glibc

/// What a daemon of any ABI version left pinned, read by the sizes that its maps say they have.
///
/// This works because of a promise: `culvert_pod` and `culvert_name` only ever grow at their end, so a prefix means the
/// same in every version, and their maps keep their names. Fields that the other version did not have read as zero.
struct PinnedVersion: Sendable {
    struct Entry: Sendable {
        var pod: culvert_pod
        /// nil: the daemon died between making the entry and naming it.
        let name: culvert_name?
    }

    let directory: String
    /// By the cookie of the network namespace.
    let entries: [UInt64: Entry]

    /// - Returns: nil when there is nothing in the directory that says whom it captures.
    init?(_ directory: String) {
        self.directory = directory
        guard let pods = BPFLink.open("\(directory)/pods"),
            let values = Self.values(of: pods, as: culvert_pod(), atLeast: Self.smallestPod)
        else { return nil }
        let names = BPFLink.open("\(directory)/names").flatMap {
            Self.values(of: $0, as: culvert_name(), atLeast: MemoryLayout<culvert_name>.size)
        }
        var entries: [UInt64: Entry] = [:]
        for (cookie, pod) in values { entries[cookie] = Entry(pod: pod, name: names?[cookie]) }
        self.entries = entries
    }

    /// Up to the first address: what says where the capture is and what there was before it.
    private static let smallestPod = 16

    /// The links pinned in the directory that this version knows, by name.
    var links: [String] { Files.names(in: directory).filter(Pins.isLink) }

    /// Puts one namespace back as the capture found it. A namespace that nothing names any more took its routes with it.
    static func restore(_ pod: culvert_pod, cookie: UInt64, namespace: Descriptor? = nil) -> KernelError? {
        guard let namespace = namespace ?? findNamespace(inode: pod.namespace_inode) else { return nil }
        let place = "net:[\(pod.namespace_inode)]"
        do throws(KernelError) {
            try inNamespace(namespace.raw, place: place) { () throws(KernelError) in
                // Inode numbers are given out again, cookies never: a stranger's namespace is left alone. Where the kernel
                // does not tell the cookie (before 5.14) the inode has to do.
                guard [0, cookie].contains(currentNamespaceCookie()) else { return }
                try CaptureRoutes.remove(loopback: if_nametoindex("lo"), place: place)
                try DNSRoute.remove(place: place)
                try pod.settings.apply()
            }
            return nil
        } catch {
            return error
        }
    }

    /// Has connections that bypass the TCP stack go on by TCP, as a control value of zeros says in every version.
    static func endShortcuts(_ directory: String) {
        guard let control = BPFLink.open("\(directory)/control"), let shape = mapShape(control), shape.keySize == 4
        else {
            return
        }
        var key: UInt32 = 0
        let zeros = [UInt8](repeating: 0, count: Int(shape.valueSize))
        _ = bpf_map_update_elem(control.raw, &key, zeros, UInt64(BPF_ANY))
    }

    /// Every value of a map with eight-byte keys, cut or filled up with zeros to the size of `zero`.
    private static func values<Value: BitwiseCopyable>(
        of map: Descriptor, as zero: Value, atLeast least: Int
    ) -> [UInt64: Value]? {
        guard let shape = mapShape(map), shape.keySize == 8, shape.valueSize >= least else { return nil }
        let size = Int(shape.valueSize)
        var found: [UInt64: Value] = [:]
        var bytes = [UInt8](repeating: 0, count: size)
        var key: UInt64 = 0
        var code = bpf_map_get_next_key(map.raw, nil, &key)
        while code == 0 {
            if bpf_map_lookup_elem(map.raw, &key, &bytes) == 0 {
                var value = zero
                withUnsafeMutableBytes(of: &value) { room in
                    room.copyBytes(from: bytes.prefix(min(size, room.count)))
                }
                found[key] = value
            }
            var next: UInt64 = 0
            code = bpf_map_get_next_key(map.raw, &key, &next)
            key = next
        }
        return found
    }
}
