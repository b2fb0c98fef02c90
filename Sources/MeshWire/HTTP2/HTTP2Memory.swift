internal import CNgHTTP2

/// The allocator of HTTP/2 sessions: blocks of fixed classes, kept for reuse when freed, so that a session in its steady
/// state (and a new session after an old one) asks the system for nothing.
///
/// One for each core, shared by its sessions; not for use by two threads.
///
///     block:  │ class (8 bytes) │ size asked for (8 bytes) │ memory handed out, aligned to 16 │
///
/// A free block holds the address of the next one where its memory was.
public final class HTTP2Memory {
    /// Bytes of a block with its header. The class above 16 KiB fits the codec's frame buffer without waste.
    private static let sizes = [
        64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16640, 24576, 33024,
    ]
    private static let header = 16
    /// Marks a block too large to keep.
    private static let unpooled = Int.max

    private let classSizes: UnsafeMutableBufferPointer<Int>
    private let free: UnsafeMutableBufferPointer<UnsafeMutableRawPointer?>
    private let keptLimit: Int
    /// Bytes in free blocks.
    public private(set) var keptBytes = 0
    /// Blocks handed out and not given back.
    public private(set) var liveBlocks = 0

    /// - Parameter keeping: bytes of free blocks that are kept; past it they go back to the system.
    public init(keeping keptLimit: Int = 4 << 20) {
        self.keptLimit = keptLimit
        classSizes = .allocate(capacity: Self.sizes.count)
        _ = classSizes.initialize(fromContentsOf: Self.sizes)
        free = .allocate(capacity: Self.sizes.count)
        free.initialize(repeating: nil)
    }

    deinit {
        for index in 0..<free.count {
            while let block = free[index] {
                free[index] = block.load(fromByteOffset: Self.header, as: UnsafeMutableRawPointer?.self)
                block.deallocate()
            }
        }
        free.deallocate()
        classSizes.deallocate()
    }

    /// The functions that a session calls. It must not outlive this object.
    var interface: nghttp2_mem {
        nghttp2_mem(
            mem_user_data: Unmanaged.passUnretained(self).toOpaque(),
            malloc: { size, owner in HTTP2Memory.of(owner).allocate(size) },
            free: { pointer, owner in
                if let pointer { HTTP2Memory.of(owner).release(pointer) }
            },
            calloc: { count, size, owner in
                let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
                guard !overflow else { return nil }
                let pointer = HTTP2Memory.of(owner).allocate(bytes)
                pointer.initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
                return pointer
            },
            realloc: { pointer, size, owner in HTTP2Memory.of(owner).resize(pointer, to: size) })
    }

    private static func of(_ owner: UnsafeMutableRawPointer?) -> HTTP2Memory {
        Unmanaged<HTTP2Memory>.fromOpaque(owner!).takeUnretainedValue()
    }

    private func allocate(_ size: Int) -> UnsafeMutableRawPointer {
        liveBlocks += 1
        let needed = size + Self.header
        var index = 0
        while index < classSizes.count, classSizes[index] < needed { index += 1 }
        let block: UnsafeMutableRawPointer
        if index == classSizes.count {
            block = .allocate(byteCount: needed, alignment: 16)
            index = Self.unpooled
        } else if let kept = free[index] {
            free[index] = kept.load(fromByteOffset: Self.header, as: UnsafeMutableRawPointer?.self)
            keptBytes -= classSizes[index]
            block = kept
        } else {
            block = .allocate(byteCount: classSizes[index], alignment: 16)
        }
        block.storeBytes(of: index, as: Int.self)
        block.storeBytes(of: size, toByteOffset: 8, as: Int.self)
        return block + Self.header
    }

    private func release(_ pointer: UnsafeMutableRawPointer) {
        liveBlocks -= 1
        let block = pointer - Self.header
        let index = block.load(as: Int.self)
        guard index != Self.unpooled, keptBytes + classSizes[index] <= keptLimit else { return block.deallocate() }
        block.storeBytes(of: free[index], toByteOffset: Self.header, as: UnsafeMutableRawPointer?.self)
        free[index] = block
        keptBytes += classSizes[index]
    }

    private func resize(_ pointer: UnsafeMutableRawPointer?, to size: Int) -> UnsafeMutableRawPointer {
        guard let pointer else { return allocate(size) }
        let block = pointer - Self.header
        let index = block.load(as: Int.self)
        let oldSize = block.load(fromByteOffset: 8, as: Int.self)
        if index != Self.unpooled, size + Self.header <= classSizes[index] {
            block.storeBytes(of: size, toByteOffset: 8, as: Int.self)
            return pointer
        }
        let moved = allocate(size)
        moved.copyMemory(from: pointer, byteCount: min(oldSize, size))
        release(pointer)
        return moved
    }
}
