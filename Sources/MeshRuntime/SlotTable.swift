/// Who hears about a registered descriptor. A token for the kernel is slot number and generation; taking a slot and
/// leaving it both move the generation on, so that an event of the last owner, still in the batch being dispatched
/// when a descriptor number is used again, matches nobody.
///
/// Occupants are not retained: a stream leaves its slot when it is closed, at the latest in `deinit`.
struct SlotTable: ~Copyable {
    enum Occupant {
        case nobody(nextFree: Int32)
        case stream(Unmanaged<SocketStream>)
        case acceptor(Unmanaged<Acceptor>)
        case datagrams(Unmanaged<DatagramSocket>)
    }

    private struct Slot {
        var occupant: Occupant
        var generation: UInt32
    }

    private var slots: UnsafeMutablePointer<Slot>
    private var capacity: Int32
    private var firstFree: Int32 = -1
    /// Slots that were ever taken; the rest is raw memory.
    private var used: Int32 = 0
    private(set) var occupied = 0

    init(capacity: Int32) {
        self.capacity = capacity
        slots = .allocate(capacity: Int(capacity))
    }

    deinit { slots.deallocate() }

    /// The token under which `occupant` is to be registered.
    mutating func take(_ occupant: Occupant) -> UInt64 {
        let index: Int32
        if firstFree >= 0, case .nobody(let next) = slots[Int(firstFree)].occupant {
            index = firstFree
            firstFree = next
            slots[Int(index)].occupant = occupant
            slots[Int(index)].generation &+= 1
        } else {
            if used == capacity { grow() }
            index = used
            used += 1
            (slots + Int(index)).initialize(to: Slot(occupant: occupant, generation: 1))
        }
        occupied += 1
        return UInt64(slots[Int(index)].generation) << 32 | UInt64(UInt32(bitPattern: index))
    }

    mutating func leave(_ token: UInt64) {
        let index = Int32(truncatingIfNeeded: token)
        precondition(slots[Int(index)].generation == UInt32(token >> 32), "a slot is left by its owner, once")
        slots[Int(index)].generation &+= 1
        slots[Int(index)].occupant = .nobody(nextFree: firstFree)
        firstFree = index
        occupied -= 1
    }

    /// Who registered `token`, unless they have left since.
    func occupant(of token: UInt64) -> Occupant? {
        let index = Int32(truncatingIfNeeded: token)
        guard index >= 0, index < used, slots[Int(index)].generation == UInt32(token >> 32) else { return nil }
        return slots[Int(index)].occupant
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Slot>.allocate(capacity: Int(capacity) * 2)
        larger.moveInitialize(from: slots, count: Int(used))
        slots.deallocate()
        slots = larger
        capacity *= 2
    }
}
