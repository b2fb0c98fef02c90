import CMeshSystem

/// Where a core's time comes from.
public enum CoreClock: Sendable {
    /// CLOCK_MONOTONIC; `Core.run`, `start` or `turn(waitingAtMost:)` drive the core.
    case system
    /// Starts at 0 and moves only by `Core.turn(advancing:)`: simulation and tests.
    case manual
}

/// One event loop on one thread: its sockets, timers, buffers and chance. Nothing on it is shared, so nothing on it is
/// locked; other threads reach it through `handle`.
///
/// A turn is: one epoll_wait; the events it gave; the timers that are due; what other threads posted; the work
/// deferred to the end of the turn. The time `now` is read once, after the wait. Invariants:
///
/// - A descriptor is registered once, edge-triggered, when its stream is made, and leaves the epoll set by being
///   closed. Streams remember readiness themselves (see `SocketStream`), so nothing is registered again.
/// - An event carries slot and generation (see `SlotTable`): one that outlived its stream is dropped.
/// - Owners are called from `dispatch` alone, so never inside a call they make on a stream, and may close any stream,
///   acceptor or timer there.
/// - After the tables have grown to the load, a turn allocates nothing.
public final class Core {
    public let index: Int
    /// The core's clock in nanoseconds: monotonic, read once a turn.
    public private(set) var now: UInt64
    public let buffers = BufferPool()
    /// 256 KiB for loops that read and write at once; nothing in it survives the call that put it there.
    public let scratch: UnsafeMutableRawBufferPointer
    public var random: CoreRandom
    /// Events dropped because their stream was closed earlier in the same batch.
    public private(set) var staleEvents: UInt64 = 0
    public private(set) var turns: UInt64 = 0
    /// Streams and acceptors registered now.
    public var registered: Int { slots.occupied }

    private let clock: CoreClock
    private let poll: Int32
    private let mailbox: Mailbox
    private let events: UnsafeMutablePointer<mesh_event>
    private var slots = SlotTable(capacity: 1024)
    private var timers = TimerHeap(capacity: 1024)
    private var deferred = DeferredQueue(capacity: 256)
    private var spareMail: [Mailbox.Work] = []
    private var hasMail = false
    private var isStopped = false

    /// The token of the mailbox; no slot has it, since generations of taken slots are odd.
    private static let mailToken: UInt64 = 0

    /// - Parameter seed: of `random`; from the kernel when absent.
    public init(index: Int, clock: CoreClock = .system, seed: UInt64? = nil) throws(SystemError) {
        self.index = index
        self.clock = clock
        random = if let seed { CoreRandom(seed: seed) } else { CoreRandom(seed: try CoreRandom.seed()) }
        mailbox = try Mailbox()
        poll = try SystemError.check(mesh_poll_create(), "epoll_create1")
        now = clock == .system ? mesh_clock_monotonic() : 0
        scratch = .allocate(byteCount: 256 * 1024, alignment: 4096)
        events = .allocate(capacity: Int(MESH_POLL_BATCH))
        try SystemError.check(mesh_poll_add_edges(poll, mailbox.signal, Self.mailToken), "epoll_ctl")
    }

    deinit {
        mesh_close(poll)
        scratch.deallocate()
        events.deallocate()
    }

    /// The way to this core from other threads.
    public var handle: CoreHandle { CoreHandle(index: index, mailbox: mailbox) }

    // MARK: Time and work

    /// Arms `timer`, anew if it is armed already. The least it waits is until the timers of the next turn.
    public func schedule(_ timer: Timer, after nanoseconds: UInt64) {
        let (deadline, isOverflow) = now.addingReportingOverflow(nanoseconds)
        timers.arm(timer, at: isOverflow ? .max : deadline)
    }

    /// Disarms `timer`; nothing happens if it is not armed.
    public func cancel(_ timer: Timer) { timers.cancel(timer) }

    /// When the next timer is due.
    public var nextDeadline: UInt64? { timers.nextDeadline() }

    /// Performs `work` after this turn's events, timers and mail, once, however often it is asked for. Work that asks
    /// for itself again runs in the next turn, after the events of that turn.
    public func atEndOfTurn(_ work: DeferredWork) { deferred.append(work) }

    // MARK: Turning

    /// Turns on the calling thread until `CoreHandle.stop`.
    public func run() {
        while !isStopped { turn(waitingAtMost: .max) }
    }

    /// One turn that waits for events at most so many nanoseconds, and not past the next timer.
    public func turn(waitingAtMost nanoseconds: UInt64) {
        precondition(clock == .system, "a core with a manual clock is turned by advancing it")
        let count = mesh_poll_wait(poll, events, waitMilliseconds(nanoseconds))
        now = mesh_clock_monotonic()
        finishTurn(events: count)
    }

    /// One turn at a time `nanoseconds` later; never waits.
    public func turn(advancing nanoseconds: UInt64) {
        precondition(clock == .manual, "the system's clock cannot be advanced")
        now += nanoseconds
        // A simulated core has no descriptors, and then costs no system call.
        let count = slots.occupied == 0 ? 0 : mesh_poll_wait(poll, events, 0)
        hasMail = true
        finishTurn(events: count)
    }

    private func finishTurn(events count: Int32) {
        precondition(count >= 0, "epoll_wait fails only for a descriptor that is not an epoll")
        turns += 1
        for index in 0..<Int(count) { dispatch(events[index]) }
        let lastOrder = timers.lastOrder
        while let timer = timers.popDue(now, armedUpTo: lastOrder) { timer.fire() }
        if hasMail {
            hasMail = false
            if mailbox.drain(on: self, spare: &spareMail) { isStopped = true }
        }
        var next = 0
        while next < deferred.count {
            deferred.take(next, turn: turns)?.perform()
            next += 1
        }
        deferred.finishTurn()
    }

    private func dispatch(_ event: mesh_event) {
        switch slots.occupant(of: event.token) {
        case .stream(let stream): stream.takeUnretainedValue().becameReady(event.ready)
        case .acceptor(let acceptor): acceptor.takeUnretainedValue().becameReady()
        case .datagrams(let socket): socket.takeUnretainedValue().becameReady()
        case .nobody, nil:
            if event.token == Self.mailToken { hasMail = true } else { staleEvents += 1 }
        }
    }

    /// Rounded up: waking early would only mean waiting again.
    private func waitMilliseconds(_ limit: UInt64) -> Int32 {
        if !deferred.isEmpty { return 0 }
        var wait = limit
        if let deadline = timers.nextDeadline() {
            // `now` may be a whole turn old.
            let current = mesh_clock_monotonic()
            wait = min(wait, deadline > current ? deadline - current : 0)
        }
        if wait == .max { return -1 }
        return Int32(clamping: wait / 1_000_000 + (wait % 1_000_000 == 0 ? 0 : 1))
    }

    // MARK: Descriptors

    /// Registers a stream's descriptor; its errno instead of a token when the kernel refuses.
    func register(_ stream: SocketStream, descriptor: Int32) -> Result<UInt64, SystemError> {
        let token = slots.take(.stream(.passUnretained(stream)))
        let result = mesh_poll_add_edges(poll, descriptor, token)
        if result == 0 { return .success(token) }
        slots.leave(token)
        return .failure(SystemError(code: -result, operation: "epoll_ctl"))
    }

    func register(_ acceptor: Acceptor, listener: Int32) -> Result<UInt64, SystemError> {
        let token = slots.take(.acceptor(.passUnretained(acceptor)))
        let result = mesh_poll_add_listener(poll, listener, token)
        if result == 0 { return .success(token) }
        slots.leave(token)
        return .failure(SystemError(code: -result, operation: "epoll_ctl"))
    }

    func register(_ socket: DatagramSocket, descriptor: Int32) -> Result<UInt64, SystemError> {
        let token = slots.take(.datagrams(.passUnretained(socket)))
        let result = mesh_poll_add_listener(poll, descriptor, token)
        if result == 0 { return .success(token) }
        slots.leave(token)
        return .failure(SystemError(code: -result, operation: "epoll_ctl"))
    }

    func setListener(_ listener: Int32, token: UInt64, isEnabled: Bool) {
        _ = mesh_poll_set_listener(poll, listener, token, isEnabled)
    }

    /// Closes a registered descriptor, which takes it out of the epoll set.
    func close(_ descriptor: Int32, token: UInt64) {
        slots.leave(token)
        mesh_close(descriptor)
    }

    /// Takes a listener out of the set before closing it: its socket may be open elsewhere too, in a socket map or
    /// in another process, and would go on being reported.
    func closeListener(_ listener: Int32, token: UInt64) {
        slots.leave(token)
        _ = mesh_poll_remove(poll, listener)
        mesh_close(listener)
    }
}
