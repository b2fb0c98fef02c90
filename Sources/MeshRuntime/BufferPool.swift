import CMeshSystem

/// Blocks of 64 KiB for bytes that wait. A block given back is kept for the next lease up to a bound; past it its
/// pages go back to the system, so that a burst does not stay in the resident set.
public final class BufferPool {
    /// Bytes in every block.
    public static let blockBytes = 64 * 1024

    /// Blocks kept while nobody uses them: at most 16 MiB a core.
    private static let idleBlocks = 256

    private let idle: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private var idleCount = 0

    /// Blocks out on lease.
    public private(set) var leased = 0
    /// The most that were ever out at once.
    public private(set) var mostLeased = 0

    init() { idle = .allocate(capacity: Self.idleBlocks) }

    deinit {
        for index in 0..<idleCount { mesh_pages_unmap(idle[index], Self.blockBytes) }
        idle.deallocate()
    }

    /// A block of `blockBytes` bytes with whatever it last held. Give it back exactly once, on the same core.
    public func lease() -> UnsafeMutableRawBufferPointer {
        leased += 1
        mostLeased = max(mostLeased, leased)
        if idleCount > 0 {
            idleCount -= 1
            return UnsafeMutableRawBufferPointer(start: idle[idleCount], count: Self.blockBytes)
        }
        guard let pages = mesh_pages_map(Self.blockBytes) else { fatalError("out of memory: no pages for a buffer") }
        return UnsafeMutableRawBufferPointer(start: pages, count: Self.blockBytes)
    }

    /// Ends a lease. `block` is exactly what `lease` gave.
    public func giveBack(_ block: UnsafeMutableRawBufferPointer) {
        precondition(block.count == Self.blockBytes && leased > 0, "not a block of this pool")
        guard let start = block.baseAddress else { return }
        leased -= 1
        if idleCount == Self.idleBlocks {
            mesh_pages_unmap(start, Self.blockBytes)
            return
        }
        idle[idleCount] = start
        idleCount += 1
    }
}
