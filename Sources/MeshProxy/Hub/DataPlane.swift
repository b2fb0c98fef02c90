public import MeshModel
public import MeshRuntime

/// The cores of a daemon, seen from the control thread: work is posted to each core and answers are awaited.
public final class DataPlane: Sendable {
    private struct Member: Sendable {
        let handle: CoreHandle
        let hub: CoreBound
    }

    private let members: [Member]

    /// Makes `count` cores with their hubs and starts their threads.
    public init(cores count: Int, makeHub: (Core) -> ProxyCore) throws(SystemError) {
        var members: [Member] = []
        for index in 0..<count {
            let core = try Core(index: index)
            members.append(Member(handle: core.handle, hub: CoreBound(makeHub(core))))
            _ = try core.start()
        }
        self.members = members
    }

    public var coreCount: Int { members.count }

    /// Runs `body` on every core, soon, in the order of calls.
    public func post(_ body: @escaping @Sendable (ProxyCore) -> Void) {
        for member in members { member.handle.post { _ in body(member.hub.hub) } }
    }

    /// Runs `body` on core `index`.
    public func post(to index: Int, _ body: @escaping @Sendable (ProxyCore) -> Void) {
        let member = members[index]
        member.handle.post { _ in body(member.hub.hub) }
    }

    /// Asks every core and gives the answers in the order of cores.
    public func collect<Answer: Sendable>(_ body: @escaping @Sendable (ProxyCore) -> Answer) async -> [Answer] {
        var answers: [Answer] = []
        for member in members {
            answers.append(
                await withCheckedContinuation { continuation in
                    member.handle.post { _ in continuation.resume(returning: body(member.hub.hub)) }
                })
        }
        return answers
    }

    /// Has core `index` accept on these listeners for a workload that it knows, on all of them or on none. Whatever comes
    /// of it, the descriptors are the core's from here on.
    public func listen(
        on listeners: [(purpose: ListenerPurpose, socket: Int32)], for name: ObjectName, core index: Int
    ) async throws(SystemError) {
        let member = members[index]
        let result: Result<Void, SystemError> = await withCheckedContinuation { continuation in
            member.handle.post { _ in continuation.resume(returning: member.hub.hub.listen(on: listeners, for: name)) }
        }
        try result.get()
    }

    /// Stops the threads. Nothing may be posted afterwards.
    public func stop() {
        for member in members { member.handle.stop() }
    }
}

/// Why unchecked: the hub is touched only inside work that the core's own thread runs; this box just lets the
/// control thread name it.
private final class CoreBound: @unchecked Sendable {
    let hub: ProxyCore

    init(_ hub: ProxyCore) { self.hub = hub }
}

extension DataPlane {
    /// Takes nothing new, waits for what is open, closes the rest. Returns how many had to be closed.
    ///
    /// Sessions are waited for as well: a peer may have sent a request on one before it heard that we leave, and would
    /// see it fail if the session ended out of order.
    public func drain(atMost limit: Duration) async -> Int {
        post { $0.drain() }
        let clock = ContinuousClock()
        let deadline = clock.now.advanced(by: limit)
        while clock.now < deadline {
            if await collect({ $0.openConnections + $0.openSessions }).allSatisfy({ $0 == 0 }) { return 0 }
            try? await clock.sleep(for: .milliseconds(50))
        }
        let left = await openConnections()
        post { $0.closeAll(.drain) }
        // Once every core has answered, it has closed what it had.
        _ = await openConnections()
        return left
    }

    /// Connections open now, over all cores.
    public func openConnections() async -> Int {
        await collect { $0.openConnections }.reduce(0, +)
    }
}
