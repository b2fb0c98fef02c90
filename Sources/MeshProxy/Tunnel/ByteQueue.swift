internal import MeshRuntime

/// Bytes in leased blocks, first in first out. Empty, it holds no block.
struct ByteQueue {
    private struct Block {
        var lease: BufferLease
        var start: Int
        var end: Int
    }

    private var blocks: [Block] = []
    private(set) var count = 0

    /// Copies `bytes` to the end, filling the last block first.
    mutating func append(_ bytes: UnsafeRawBufferPointer, from pool: BufferPool) {
        var rest = bytes
        count += bytes.count
        while rest.count > 0 {
            if blocks.isEmpty || blocks[blocks.count - 1].end == BufferPool.blockSize {
                blocks.append(Block(lease: pool.lease(), start: 0, end: 0))
            }
            let last = blocks.count - 1
            let taken = min(rest.count, BufferPool.blockSize - blocks[last].end)
            UnsafeMutableRawBufferPointer(rebasing: blocks[last].lease.bytes[blocks[last].end...])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<taken]))
            blocks[last].end += taken
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
        }
    }

    /// Copies out as much as fits and is there.
    mutating func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        var emptied = 0
        while done < buffer.count, emptied < blocks.count {
            let index = emptied
            let taken = min(buffer.count - done, blocks[index].end - blocks[index].start)
            UnsafeMutableRawBufferPointer(rebasing: buffer[done...]).copyMemory(
                from: UnsafeRawBufferPointer(
                    rebasing: blocks[index].lease.bytes[blocks[index].start..<(blocks[index].start + taken)]))
            done += taken
            blocks[index].start += taken
            if blocks[index].start < blocks[index].end { break }
            blocks[index].lease.giveBack()
            emptied += 1
        }
        if emptied > 0 { blocks.removeFirst(emptied) }
        count -= done
        return done
    }

    mutating func clear() {
        for block in blocks { block.lease.giveBack() }
        blocks.removeAll(keepingCapacity: false)
        count = 0
    }
}
