import Glibc

/// Endless bytes that show where they came from: a table read from any offset. Its length is prime, so that blocks that
/// were swapped, repeated or lost do not match by chance.
enum Pattern {
    private static let period = 65_521
    // Unsafe only by type: nobody writes to it once it is made.
    private nonisolated(unsafe) static let table: UnsafeMutableRawBufferPointer = {
        let table = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * 65_536 + period, alignment: 16)
        var state: UInt64 = 1
        for index in 0..<period {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            table[index] = UInt8(truncatingIfNeeded: state >> 56)
        }
        for index in period..<table.count { table[index] = table[index - period] }
        return table
    }()

    /// Bytes `offset..<(offset + count)` of stream number `key`; at most 64 KiB.
    static func bytes(_ key: Int, at offset: Int, count: Int) -> UnsafeRawBufferPointer {
        let start = (offset + key * 977) % period
        return UnsafeRawBufferPointer(rebasing: table[start..<(start + min(count, 65_536))])
    }

    static func matches(_ bytes: UnsafeRawBufferPointer, _ key: Int, at offset: Int) -> Bool {
        guard let start = bytes.baseAddress, bytes.count > 0 else { return true }
        return memcmp(start, Self.bytes(key, at: offset, count: bytes.count).baseAddress!, bytes.count) == 0
    }
}
