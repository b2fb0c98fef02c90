internal import CBPF
internal import CMeshABI
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
        let code = update(value, for: key)
        if code < 0 {
            throw KernelError(
                code == -E2BIG ? .limitReached : .system, "writing the map \(name)", at: "key \(key)", code: code,
                remedy: code == -E2BIG
                    ? "this node captures \(CaptureConstants.maximumWorkloads) workloads at most"
                    : "check that the descriptors given are listening TCP sockets")
        }
    }

    /// Writes an entry, or with `existing` only one that is there. 0 or a negated errno: -E2BIG when the map is full.
    func update(_ value: Value, for key: Key, existing: Bool = false) -> Int32 {
        let flags = existing ? UInt64(BPF_EXIST) : UInt64(BPF_ANY)
        return withUnsafePointer(to: key) { key in
            withUnsafePointer(to: value) { bpf_map_update_elem(descriptor.raw, key, $0, flags) }
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

    /// All entries of a hash map. What comes and goes meanwhile may be missing; what stays is there.
    var entries: [(key: Key, value: Value)] {
        batches ?? keys.compactMap { key in value(for: key).map { (key, $0) } }
    }

    /// The entries by thousands at a system call; nil where the kernel cannot (before 5.6).
    private var batches: [(key: Key, value: Value)]? {
        let room = 4096
        let keys = UnsafeMutablePointer<Key>.allocate(capacity: room)
        let values = UnsafeMutablePointer<Value>.allocate(capacity: room)
        defer {
            keys.deallocate()
            values.deallocate()
        }
        var found: [(key: Key, value: Value)] = []
        // What a hash map's position is to the kernel, opaque to us.
        var position: UInt32 = 0
        var isFirst = true
        while true {
            var count = UInt32(room)
            var from = position
            let code = withUnsafeMutablePointer(to: &from) {
                bpf_map_lookup_batch(descriptor.raw, isFirst ? nil : $0, &position, keys, values, &count, nil)
            }
            guard code == 0 || code == -ENOENT else { return nil }
            for index in 0..<Int(count) { found.append((keys[index], values[index])) }
            // With the last ones the kernel says that there is nothing behind them.
            if code != 0 { return found }
            isFirst = false
        }
    }
}

extension BPFMap where Key == UInt32, Value == culvert_counters {
    /// Makes the counters of a slot, at zero; those that are there stay.
    func make(_ slot: UInt32) throws(KernelError) {
        if sums(of: slot) == nil { try store([UInt64](repeating: 0, count: Self.width), for: slot) }
    }

    /// Adds the counters of a slot to those of the workloads that are gone, and forgets the slot.
    func retire(_ slot: UInt32) {
        guard let last = sums(of: slot) else { return }
        let before = sums(of: CULVERT_SLOT_RETIRED) ?? [UInt64](repeating: 0, count: Self.width)
        try? store(zip(before, last).map(&+), for: CULVERT_SLOT_RETIRED)
        remove(slot)
    }

    /// The sums over all CPUs, by event; nil when there is no such slot.
    func sums(of slot: UInt32) -> [UInt64]? {
        withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.cpus * Self.width) { room in
            let code = withUnsafePointer(to: slot) { bpf_map_lookup_elem(descriptor.raw, $0, room.baseAddress) }
            guard code == 0 else { return nil }
            return (0..<Self.width).map { event in
                (0..<Self.cpus).reduce(0) { $0 &+ room[$1 * Self.width + event] }
            }
        }
    }

    private static var width: Int { Int(CULVERT_EVENTS_ROOM) }
    private static var cpus: Int { max(1, Int(libbpf_num_possible_cpus())) }

    /// Writes one CPU's share as given and zeros for the others.
    private func store(_ counters: [UInt64], for slot: UInt32) throws(KernelError) {
        let all = counters + [UInt64](repeating: 0, count: (Self.cpus - 1) * Self.width)
        let code = withUnsafePointer(to: slot) { key in
            all.withUnsafeBytes { bpf_map_update_elem(descriptor.raw, key, $0.baseAddress, UInt64(BPF_ANY)) }
        }
        if code < 0 {
            throw KernelError(
                code == -E2BIG ? .limitReached : .system, "writing the map \(name)", at: "slot \(slot)", code: code,
                remedy: "this node captures \(CaptureConstants.maximumWorkloads) workloads at most")
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
