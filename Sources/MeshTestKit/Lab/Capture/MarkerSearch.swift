import Foundation

/// Finds byte strings in a stream that comes in pieces, also across the borders of pieces.
struct MarkerSearch {
    private let markers: [[UInt8]]
    private var tail: [UInt8] = []
    private let longest: Int

    init(_ markers: [[UInt8]]) {
        precondition(markers.allSatisfy { !$0.isEmpty }, "an empty marker is everywhere")
        self.markers = markers
        longest = markers.map(\.count).max() ?? 0
    }

    /// The indices of the markers that end in this piece.
    mutating func feed(_ bytes: UnsafeRawBufferPointer) -> Set<Int> {
        guard longest > 0, !bytes.isEmpty else { return [] }
        var found: Set<Int> = []
        let border = tail + bytes.prefix(longest - 1)
        border.withUnsafeBytes { border in
            for (index, marker) in markers.enumerated() {
                if Self.contains(border, marker) || Self.contains(bytes, marker) { found.insert(index) }
            }
        }
        tail = Array((bytes.count >= longest - 1 ? Array(bytes.suffix(longest - 1)) : border).suffix(longest - 1))
        return found
    }

    /// What was kept belongs to bytes that do not join the next ones.
    mutating func forget() { tail.removeAll(keepingCapacity: true) }

    static func contains(_ bytes: UnsafeRawBufferPointer, _ marker: [UInt8]) -> Bool {
        guard bytes.count >= marker.count, let base = bytes.baseAddress else { return false }
        var position = 0
        let last = bytes.count - marker.count
        while position <= last {
            guard let hit = memchr(base + position, Int32(marker[0]), last - position + 1) else { return false }
            if memcmp(hit, marker, marker.count) == 0 { return true }
            position = UnsafeRawPointer(hit) - base + 1
        }
        return false
    }
}
