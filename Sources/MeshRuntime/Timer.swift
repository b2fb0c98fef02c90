/// Something to do later on a core. Subclass it, keep it, and arm it with `Core.schedule`; an armed timer is kept
/// alive by its core. Arming, re-arming and cancelling allocate nothing once the core has seen as many timers at once.
open class Timer {
    /// When it fires, on the core's clock in nanoseconds. Only meaningful while armed.
    public final fileprivate(set) var deadline: UInt64 = 0
    /// Breaks ties: of two timers with one deadline, the one armed first fires first.
    fileprivate final var order: UInt64 = 0
    /// Where it stands in its core's heap; -1 when it is not armed.
    fileprivate final var position = -1

    public init() {}

    public final var isArmed: Bool { position >= 0 }

    /// The deadline has come. It is no longer armed and may be armed again here.
    open func fire() {}
}

/// A binary heap of armed timers.
///
/// Idle timers are pushed further out far more often than they fire, so a later deadline does not move the entry: it
/// stays under the key it was filed under, which is never later than the timer's own deadline, and is filed anew when
/// it comes to the top. That makes the common re-arming two stores.
struct TimerHeap: ~Copyable {
    private struct Entry {
        var deadline: UInt64
        var order: UInt64
        /// Holds a retain taken by `arm`, given up by `remove`.
        var timer: Unmanaged<Timer>

        func isBefore(_ other: Entry) -> Bool {
            deadline == other.deadline ? order < other.order : deadline < other.deadline
        }
    }

    private var entries: UnsafeMutablePointer<Entry>
    private var capacity: Int
    private(set) var count = 0
    /// The order given to the last armed timer.
    private(set) var lastOrder: UInt64 = 0

    init(capacity: Int) {
        self.capacity = capacity
        entries = .allocate(capacity: capacity)
    }

    deinit {
        for index in 0..<count {
            entries[index].timer._withUnsafeGuaranteedRef { $0.position = -1 }
            entries[index].timer.release()
        }
        entries.deallocate()
    }

    mutating func arm(_ timer: Timer, at deadline: UInt64) {
        lastOrder += 1
        timer.deadline = deadline
        timer.order = lastOrder
        if timer.position >= 0 {
            assert(entries[timer.position].timer.toOpaque() == Unmanaged.passUnretained(timer).toOpaque())
            if deadline >= entries[timer.position].deadline { return }
            let index = timer.position
            entries[index].deadline = deadline
            entries[index].order = lastOrder
            siftUp(index)
            return
        }
        if count == capacity { grow() }
        let entry = Entry(deadline: deadline, order: lastOrder, timer: .passRetained(timer))
        (entries + count).initialize(to: entry)
        timer.position = count
        count += 1
        siftUp(count - 1)
    }

    mutating func cancel(_ timer: Timer) {
        guard timer.position >= 0 else { return }
        remove(at: timer.position)
    }

    /// The earliest deadline.
    mutating func nextDeadline() -> UInt64? {
        settleTop()
        return count == 0 ? nil : entries[0].deadline
    }

    /// Takes out the first timer that is due at `now` and was armed no later than `order`.
    mutating func popDue(_ now: UInt64, armedUpTo order: UInt64) -> Timer? {
        settleTop()
        guard count > 0, entries[0].deadline <= now, entries[0].order <= order else { return nil }
        let timer = entries[0].timer.takeUnretainedValue()
        remove(at: 0)
        return timer
    }

    /// Files the top anew until its key is its timer's deadline.
    private mutating func settleTop() {
        while count > 0 {
            let (deadline, order) = entries[0].timer._withUnsafeGuaranteedRef { ($0.deadline, $0.order) }
            if entries[0].deadline == deadline && entries[0].order == order { return }
            entries[0].deadline = deadline
            entries[0].order = order
            siftDown(0)
        }
    }

    private mutating func remove(at index: Int) {
        assert(index >= 0 && index < count)
        let timer = entries[index].timer
        timer._withUnsafeGuaranteedRef { $0.position = -1 }
        count -= 1
        if index < count {
            place(entries[count], at: index)
            siftDown(index)
            siftUp(index)
        }
        timer.release()
    }

    private mutating func place(_ entry: Entry, at index: Int) {
        entries[index] = entry
        entry.timer._withUnsafeGuaranteedRef { $0.position = index }
    }

    private mutating func siftUp(_ start: Int) {
        var index = start
        let entry = entries[index]
        while index > 0 {
            let parent = (index - 1) / 2
            guard entry.isBefore(entries[parent]) else { break }
            place(entries[parent], at: index)
            index = parent
        }
        place(entry, at: index)
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        let entry = entries[index]
        while true {
            var child = 2 * index + 1
            guard child < count else { break }
            if child + 1 < count && entries[child + 1].isBefore(entries[child]) { child += 1 }
            guard entries[child].isBefore(entry) else { break }
            place(entries[child], at: index)
            index = child
        }
        place(entry, at: index)
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Entry>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: entries, count: count)
        entries.deallocate()
        entries = larger
        capacity *= 2
    }
}
