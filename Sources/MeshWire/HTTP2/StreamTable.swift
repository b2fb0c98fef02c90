/// The open streams of a session: an open-addressing hash table of 12-byte slots, keyed by stream identifier.
/// It allocates only when it grows; identifiers of one side are odd or even, so they are mixed before use.
struct StreamTable: ~Copyable {
    struct Slot {
        /// 0 marks a free slot: it is the connection's own identifier (RFC 9113 §5.1.1).
        var id: Int32
        /// Bytes delivered and not consumed yet.
        var unconsumed: Int32
        var state: State
    }

    struct State: OptionSet {
        let rawValue: UInt8
        /// The server answered, or the client got its answer.
        static let answered = State(rawValue: 1)
        static let peerEnded = State(rawValue: 2)
        /// `outgoingData` said `.pause`.
        static let paused = State(rawValue: 4)
        /// `closed` was told; only unconsumed bytes are left.
        static let over = State(rawValue: 8)
    }

    private(set) var count = 0
    private var slots: UnsafeMutablePointer<Slot>
    /// A power of two.
    private var capacity: Int

    init(capacity: Int = 16) {
        self.capacity = capacity
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: Slot(id: 0, unconsumed: 0, state: []), count: capacity)
    }

    deinit { slots.deallocate() }

    private func home(_ id: Int32) -> Int {
        Int(truncatingIfNeeded: (UInt64(UInt32(bitPattern: id)) &* 0x9e37_79b9_7f4a_7c15) >> 32) & (capacity - 1)
    }

    /// Where the stream is, until the next insertion or removal.
    func index(of id: Int32) -> Int? {
        var index = home(id)
        while slots[index].id != 0 {
            if slots[index].id == id { return index }
            index = (index + 1) & (capacity - 1)
        }
        return nil
    }

    func contains(_ id: Int32) -> Bool { index(of: id) != nil }

    subscript(index: Int) -> Slot {
        get { slots[index] }
        set { slots[index] = newValue }
    }

    mutating func insert(_ id: Int32) {
        precondition(id > 0 && !contains(id), "a stream is opened once")
        if (count + 1) * 4 > capacity * 3 { grow() }
        place(Slot(id: id, unconsumed: 0, state: []))
        count += 1
    }

    private func place(_ slot: Slot) {
        var index = home(slot.id)
        while slots[index].id != 0 { index = (index + 1) & (capacity - 1) }
        slots[index] = slot
    }

    private mutating func grow() {
        let old = slots
        let oldCapacity = capacity
        capacity *= 2
        slots = .allocate(capacity: capacity)
        slots.initialize(repeating: Slot(id: 0, unconsumed: 0, state: []), count: capacity)
        for index in 0..<oldCapacity where old[index].id != 0 { place(old[index]) }
        old.deallocate()
    }

    /// Takes the stream out and returns what was known of it.
    mutating func remove(_ id: Int32) -> Slot? {
        guard var hole = index(of: id) else { return nil }
        let removed = slots[hole]
        count -= 1
        // Close the gap: a later slot of the same run moves here unless its home lies between.
        var next = (hole + 1) & (capacity - 1)
        while slots[next].id != 0 {
            let distance = (next - home(slots[next].id)) & (capacity - 1)
            if distance >= (next - hole) & (capacity - 1) {
                slots[hole] = slots[next]
                hole = next
            }
            next = (next + 1) & (capacity - 1)
        }
        slots[hole].id = 0
        return removed
    }
}
