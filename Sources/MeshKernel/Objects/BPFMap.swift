internal import CBPF
internal import Glibc

/// A hash, array or socket map with keys and values of fixed layout.
struct BPFMap<Key: BitwiseCopyable & Sendable, Value: BitwiseCopyable & Sendable>: Sendable {
    let descriptor: Descriptor
    let name: String

    func value(for key: Key) -> Value? {
        withUnsafeTemporaryAllocation(of: Value.self, capacity: 1) { room in
            let code = withUnsafePointer(to: key) { bpf_map_lookup_elem(descriptor.raw, $0, room.baseAddress) }
            return code == 0 ? room[0] : nil
        }
    }

    func set(_ value: Value, for key: Key) throws(KernelError) {
        let code = withUnsafePointer(to: key) { key in
            withUnsafePointer(to: value) { bpf_map_update_elem(descriptor.raw, key, $0, UInt64(BPF_ANY)) }
        }
        if code < 0 {
            throw KernelError(
                code == -E2BIG ? .limitReached : .system, "writing the map \(name)", at: "key \(key)", code: code,
                remedy: code == -E2BIG
                    ? "this node captures \(CaptureConstants.maximumWorkloads) workloads at most"
                    : "check that the descriptors given are listening TCP sockets")
        }
    }

    /// Removes an entry; one that is not there is no error.
    func remove(_ key: Key) {
        _ = withUnsafePointer(to: key) { bpf_map_delete_elem(descriptor.raw, $0) }
    }

    var keys: [Key] {
        withUnsafeTemporaryAllocation(of: Key.self, capacity: 1) { room in
            var found: [Key] = []
            var code = bpf_map_get_next_key(descriptor.raw, nil, room.baseAddress)
            while code == 0 {
                found.append(room[0])
                code = withUnsafePointer(to: room[0]) { bpf_map_get_next_key(descriptor.raw, $0, room.baseAddress) }
            }
            return found
        }
    }
}

extension BPFMap where Key == UInt32, Value == UInt64 {
    /// The sum over all CPUs of one counter of a per-CPU array.
    func sum(at index: UInt32) -> UInt64 {
        let count = max(1, Int(libbpf_num_possible_cpus()))
        return withUnsafeTemporaryAllocation(of: UInt64.self, capacity: count) { room in
            let code = withUnsafePointer(to: index) { bpf_map_lookup_elem(descriptor.raw, $0, room.baseAddress) }
            return code == 0 ? room.reduce(0, &+) : 0
        }
    }
}

/// What the kernel says of a map.
func mapShape(_ descriptor: Descriptor) -> (type: UInt32, keySize: UInt32, valueSize: UInt32, entries: UInt32)? {
    var info = bpf_map_info()
    var size = UInt32(MemoryLayout<bpf_map_info>.size)
    guard bpf_obj_get_info_by_fd(descriptor.raw, &info, &size) == 0 else { return nil }
    return (info.type, info.key_size, info.value_size, info.max_entries)
}
