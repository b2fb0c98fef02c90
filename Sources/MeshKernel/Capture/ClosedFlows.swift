internal import CBPF
internal import CMeshABI
internal import Glibc

/// Reads the records of direct connections that are over, in the order in which they ended. One reader at a time; not
/// to be shared between threads.
public struct ClosedFlows: ~Copyable {
    private final class Batch {
        var records: [DirectRecord] = []
    }

    private let ring: OpaquePointer
    private let batch = Batch()
    /// The map stays as long as it is read.
    private let map: Descriptor

    public init(of capture: KernelCapture) throws(KernelError) {
        map = capture.objects.closed
        let context = Unmanaged.passUnretained(batch).toOpaque()
        let made = ring_buffer__new(
            map.raw,
            { context, data, size in
                guard let context, let data, size >= MemoryLayout<culvert_closed>.size else { return 0 }
                let record = DirectRecord(data.loadUnaligned(as: culvert_closed.self))
                Unmanaged<Batch>.fromOpaque(context).takeUnretainedValue().records.append(record)
                return 0
            }, context, nil)
        guard let made else {
            throw KernelError(
                .system, "reading closed connections", at: capture.options.nodeName, code: errno,
                remedy: "raise the limit of open files (ulimit -n)")
        }
        ring = made
    }

    deinit { ring_buffer__free(ring) }

    /// What came since the last time. Before it looks it waits for `milliseconds`, less when the ring fills up.
    public func next(within milliseconds: Int32) -> [DirectRecord] {
        _ = ring_buffer__poll(ring, milliseconds)
        _ = ring_buffer__consume(ring)
        defer { batch.records.removeAll(keepingCapacity: true) }
        return batch.records
    }
}
