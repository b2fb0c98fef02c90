/// Something to do once at the end of the turn, however often it was asked for: flushing what several events have
/// written, taking up a stream again after its share of the turn. Subclass it, keep it, queue it with
/// `Core.atEndOfTurn`; while queued it is kept alive by its core.
open class DeferredWork {
    /// Asked for and not yet performed.
    public final fileprivate(set) var isQueued = false
    /// The turn it was last performed in.
    fileprivate final var performedTurn: UInt64 = 0

    public init() {}

    open func perform() {}
}

/// The work of the end of a turn. Each piece runs at most once a turn, so a turn always ends: work asked for again
/// after it ran waits for the next turn, which does not sleep.
struct DeferredQueue: ~Copyable {
    private var queue: [DeferredWork] = []
    private var carried: [DeferredWork] = []

    init(capacity: Int) {
        queue.reserveCapacity(capacity)
        carried.reserveCapacity(capacity)
    }

    var isEmpty: Bool { queue.isEmpty }

    mutating func append(_ work: DeferredWork) {
        if work.isQueued { return }
        work.isQueued = true
        queue.append(work)
    }

    /// The piece at `index` of this turn's work if it is to run now; carries it over otherwise.
    mutating func take(_ index: Int, turn: UInt64) -> DeferredWork? {
        let work = queue[index]
        if work.performedTurn == turn {
            carried.append(work)
            return nil
        }
        work.performedTurn = turn
        work.isQueued = false
        return work
    }

    var count: Int { queue.count }

    /// This turn's work is done; what was carried over is the next turn's.
    mutating func finishTurn() {
        queue.removeAll(keepingCapacity: true)
        swap(&queue, &carried)
    }
}
