import Synchronization

/// A ring of records from one core to the writer's thread: one producer, one consumer, bounded.
///
/// A core never waits: when the ring is full the record is dropped and counted.
///
///     slots   [ . . r r r r . . ]        positions only grow; slot = position & mask
///                   ^read   ^written
///
/// `written` is stored by the core and `read` by the writer; a slot belongs to the writer from the store of `written`
/// that passes it until the store of `read` that passes it, and to the core otherwise.
// @unchecked because the slots are shared memory: the two positions hand each of them over.
public final class AccessLogQueue: @unchecked Sendable {
    private let slots: UnsafeMutablePointer<AccessLogRecord>
    private let mask: Int
    private let written = Atomic<Int>(0)
    private let read = Atomic<Int>(0)
    private let lost = Atomic<UInt64>(0)
    private let bell: AccessLogBell

    /// `capacity` is rounded up to a power of two.
    init(capacity: Int, bell: AccessLogBell) {
        var size = 1
        while size < capacity { size *= 2 }
        slots = .allocate(capacity: size)
        mask = size - 1
        self.bell = bell
    }

    deinit {
        drain { _ in }
        slots.deallocate()
    }

    /// Records that found the ring full.
    public var dropped: UInt64 { lost.load(ordering: .relaxed) }

    /// Called by the queue's one core. False: dropped.
    @discardableResult
    public func append(_ record: consuming AccessLogRecord) -> Bool {
        let position = written.load(ordering: .relaxed)
        guard position - read.load(ordering: .acquiring) <= mask else {
            lost.wrappingAdd(1, ordering: .relaxed)
            return false
        }
        (slots + (position & mask)).initialize(to: record)
        // Sequentially consistent with the bell: either the writer sees this record before it sleeps, or we see it asleep.
        written.store(position + 1, ordering: .sequentiallyConsistent)
        bell.ringIfAsleep()
        return true
    }

    var isEmpty: Bool {
        written.load(ordering: .sequentiallyConsistent) == read.load(ordering: .relaxed)
    }

    /// Called by the writer only. Takes what is there now.
    func drain(_ body: (AccessLogRecord) -> Void) {
        let end = written.load(ordering: .acquiring)
        var position = read.load(ordering: .relaxed)
        while position < end {
            body((slots + (position & mask)).move())
            position += 1
            read.store(position, ordering: .releasing)
        }
    }

    /// Counts records that were taken but could not be written.
    func countLost(_ count: Int) {
        lost.wrappingAdd(UInt64(count), ordering: .relaxed)
    }
}
