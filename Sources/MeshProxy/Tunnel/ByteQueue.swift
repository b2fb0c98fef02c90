internal import MeshRuntime

/// Bytes in leased blocks, first in first out. Empty, it holds no block.
struct ByteQueue {
    private struct Block {
        var bytes: UnsafeMutableRawBufferPointer
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
            if blocks.isEmpty || blocks[blocks.count - 1].end == BufferPool.blockBytes {
                blocks.append(Block(bytes: pool.lease(), start: 0, end: 0))
            }
            let last = blocks.count - 1
            let taken = min(rest.count, BufferPool.blockBytes - blocks[last].end)
            UnsafeMutableRawBufferPointer(rebasing: blocks[last].bytes[blocks[last].end...])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<taken]))
            blocks[last].end += taken
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
        }
    }

    /// Copies out as much as fits and is there.
    mutating func read(into buffer: UnsafeMutableRawBufferPointer, returningTo pool: BufferPool) -> Int {
        var done = 0
        var emptied = 0
        while done < buffer.count, emptied < blocks.count {
            let index = emptied
            let taken = min(buffer.count - done, blocks[index].end - blocks[index].start)
            UnsafeMutableRawBufferPointer(rebasing: buffer[done...]).copyMemory(
                from: UnsafeRawBufferPointer(
                    rebasing: blocks[index].bytes[blocks[index].start..<(blocks[index].start + taken)]))
            done += taken
            blocks[index].start += taken
            if blocks[index].start < blocks[index].end { break }
            pool.giveBack(blocks[index].bytes)
            emptied += 1
        }
        if emptied > 0 { blocks.removeFirst(emptied) }
        count -= done
        return done
    }

    mutating func clear(returningTo pool: BufferPool) {
        for block in blocks { pool.giveBack(block.bytes) }
        blocks.removeAll(keepingCapacity: false)
        count = 0
    }
}
