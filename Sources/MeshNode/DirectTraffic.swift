internal import Foundation
internal import Logging
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshTelemetry
internal import Synchronization

/// Tier T1 from the daemon's side: tells the kernel ahead which same-node connections need no proxy, decides about the
/// open ones again when policy moves, and turns the kernel's records of closed ones into the same counters and
/// access-log lines as the proxy's own.
final class DirectTraffic: Sendable {
    private struct Ends: Hashable {
        let source: SocketAddress
        let destination: SocketAddress
    }

    private struct State {
        var snapshot: MeshSnapshot?
        var live: [Workload] = []
        /// Why connections that we ended are over, until the kernel reports them.
        var ended: [Ends: ObjectName?] = [:]
        var unplaced = 0
        /// The kernel would not take the last rules; they are given to it again.
        var isFailing = false
        /// How often open connections are looked at before the next change.
        var looksLeft = 0
        /// Acceleration was asked for and cannot be had, and that was said.
        var isUnfitKnown = false
    }

    private struct Caller: Hashable {
        let identity: SPIFFEID
        let acceleration: AccelerationMode
    }

    private let nodeName: String
    private let kernel: KernelCapture
    private let plane: DataPlane
    private let logger: Logger
    private let state = Mutex(State())
    private let isStopping = Atomic(false)
    private let accelerated = Atomic<UInt64>(0)
    private let written = Atomic<UInt64>(0)
    private let stopped = DispatchSemaphore(value: 0)

    /// Reports that never came must not pile up.
    private static let maximumEnded = 65536
    private static let pollMilliseconds: Int32 = 200
    /// After a change: a connect() that was under way shows up in one of the next seconds.
    private static let looksAfterChange = 10

    init(nodeName: String, kernel: KernelCapture, plane: DataPlane, logger: Logger) {
        self.nodeName = nodeName
        self.kernel = kernel
        self.plane = plane
        self.logger = logger
    }

    // MARK: Rules

    /// Makes the kernel's rules those of `snapshot` for the workloads that are captured now. Call it whenever either
    /// changed: first when policy is known, so that what it takes back is taken back at once.
    func refresh(_ snapshot: MeshSnapshot, live: [Workload]) {
        state.withLock { state in
            state.snapshot = snapshot
            state.live = live
            state.looksLeft = Self.looksAfterChange
        }
        write(snapshot, live)
        look(snapshot)
    }

    /// To be called once a second.
    func tick() {
        let (snapshot, live, isFailing, isDue) = state.withLock { state in
            defer { state.looksLeft -= state.looksLeft > 0 ? 1 : 0 }
            return (state.snapshot, state.live, state.isFailing, state.looksLeft > 0)
        }
        guard let snapshot else { return }
        if isFailing { write(snapshot, live) }
        if isDue || isFailing { look(snapshot) }
    }

    /// What is taken back goes first.
    private func write(_ snapshot: MeshSnapshot, _ live: [Workload]) {
        var failure: (any Error)?
        do {
            note(unplaced: try kernel.setDirectRules(rules(snapshot, live)))
        } catch {
            failure = error
        }
        let addresses = Set(live.flatMap(\.addresses))
        kernel.setDirectServices(
            snapshot.directServices(node: nodeName).filter { $0.value.allSatisfy { addresses.contains($0.ip) } })
        do {
            try setAcceleration(snapshot)
        } catch {
            failure = failure ?? error
        }
        let isNews = state.withLock { state in
            defer { state.isFailing = failure != nil }
            return !state.isFailing
        }
        if failure == nil { written.store(snapshot.generation, ordering: .releasing) }
        if let failure, isNews {
            logger.error("the kernel does not take the rules of same-node connections, trying again: \(failure)")
        }
    }

    /// The generation of the configuration whose rules the kernel has; 0: of none yet.
    var configuration: UInt64 { written.load(ordering: .acquiring) }

    private func note(unplaced: Int) {
        let before = state.withLock { state in
            defer { state.unplaced = unplaced }
            return state.unplaced
        }
        if unplaced > 0, before == 0 {
            logger.warning("\(unplaced) pairs of workloads found no room in the kernel's map: the proxy carries them")
        }
    }

    /// Not only for the workloads that are captured by now: those of an earlier daemon go on until they are.
    private func setAcceleration(_ snapshot: MeshSnapshot) throws {
        let isWanted =
            snapshot.settings.sameNode == .direct
            && snapshot.localWorkloads(node: nodeName).contains { snapshot.acceleration(of: $0) == .sockmap }
        try kernel.setAcceleration(isWanted)
        guard isWanted, let obstacle = kernel.acceleration.obstacle else { return }
        let isNews = state.withLock { state in
            defer { state.isUnfitKnown = true }
            return !state.isUnfitKnown
        }
        if isNews {
            logger.warning(
                "acceleration: sockmap is not possible here: \(obstacle); same-node connections are direct by TCP")
        }
    }

    private func rules(_ snapshot: MeshSnapshot, _ live: [Workload]) -> [DirectPair: DirectRule] {
        guard snapshot.settings.sameNode == .direct else { return [:] }
        var rules: [DirectPair: DirectRule] = [:]
        for destination in live {
            // A rule depends on no more of the caller than this, and workloads of one service account share it.
            var byCaller: [Caller: DirectRule?] = [:]
            for source in live where source.name != destination.name {
                let caller = Caller(identity: source.identity, acceleration: snapshot.acceleration(of: source))
                let rule =
                    byCaller[caller] ?? snapshot.directRule(from: source, to: destination, node: nodeName)
                byCaller[caller] = .some(rule)
                rules[DirectPair(source: source.name, destination: destination.name)] = rule
            }
        }
        return rules
    }

    // MARK: Open connections

    /// Decides again about connections that older rules allowed. One that was in the middle of its connect() when the
    /// rules changed is seen the next time, so as long as there are such ones there is a next time. What was asked for by
    /// a service's address is decided about again under the same rules as well: they say nothing of services.
    private func look(_ snapshot: MeshSnapshot) {
        let flows = kernel.directFlows()
        if flows.contains(where: { !$0.isConfirmed }) {
            state.withLock { $0.looksLeft = Self.looksAfterChange }
        }
        for flow in flows where !flow.isConfirmed || flow.isAccelerated || flow.isByService {
            guard let source = flow.sourceWorkload.flatMap(snapshot.workload(named:)),
                let destination = flow.destinationWorkload.flatMap(snapshot.workload(named:))
            else {
                if !flow.isConfirmed { end(flow, policy: nil) }
                continue
            }
            if flow.isAccelerated,
                [source, destination].contains(where: { snapshot.acceleration(of: $0) == .off })
            {
                kernel.slow(flow)
            }
            guard !flow.isConfirmed || flow.isByService else { continue }
            let request = AuthorizationRequest(
                destination: destination, address: flow.destination, sourceIP: flow.source.ip,
                identity: source.identity)
            switch snapshot.authorizeOpen(request, from: source, isByService: flow.isByService) {
            case .allow: if !flow.isConfirmed { kernel.confirm(flow) }
            case .deny(_, let policy): end(flow, policy: policy)
            }
        }
    }

    private func end(_ flow: DirectFlow, policy: ObjectName?) {
        let ends = Ends(source: flow.source, destination: flow.destination)
        state.withLock { state in
            if state.ended.count >= Self.maximumEnded { state.ended.removeAll() }
            state.ended[ends] = .some(policy)
        }
        do {
            try kernel.end(flow)
        } catch {
            logger.error("a connection that is no longer allowed goes on: \(error)")
        }
    }

    /// For the admin endpoint. How much went through an open one is known to its sockets alone.
    var openConnections: [OpenConnection] {
        guard let snapshot = state.withLock({ $0.snapshot }) else { return [] }
        let now = DispatchTime.now().uptimeNanoseconds
        return kernel.directFlows().map { flow in
            let destination = flow.destinationWorkload.flatMap(snapshot.workload(named:))
            return OpenConnection(
                workload: flow.sourceWorkload ?? ObjectName(namespace: "", name: ""), direction: .outbound,
                source: flow.source, originalDestination: flow.destination, actualDestination: nil, isTunnel: false,
                peerIdentity: destination?.identity, bytesFromClient: 0,
                bytesToClient: 0, ageMilliseconds: (now - min(now, flow.startedAt)) / 1_000_000)
        }
    }

    // MARK: Closed connections

    /// How much of the closed ones bypassed TCP, in bytes.
    var acceleratedBytes: UInt64 { accelerated.load(ordering: .relaxed) }

    /// Starts the thread that reads the kernel's records.
    func start() throws {
        let ring = try ClosedFlows(of: kernel)
        let box = RingBox(ring)
        Thread.detachNewThread { [self] in
            while !isStopping.load(ordering: .relaxed) { report(box.ring.next(within: Self.pollMilliseconds)) }
            report(box.ring.next(within: 0))
            stopped.signal()
        }
    }

    /// Reports what is there and ends the thread.
    func stop() {
        isStopping.store(true, ordering: .relaxed)
        stopped.wait()
    }

    private func report(_ records: [DirectRecord]) {
        guard !records.isEmpty else { return }
        accelerated.add(records.reduce(0) { $0 &+ $1.bytesAccelerated }, ordering: .relaxed)
        let closed = state.withLock { state in
            let names = Set(state.live.map(\.name))
            return records.map { record in
                if !state.ended.isEmpty,
                    let policy = state.ended.removeValue(
                        forKey: Ends(source: record.source, destination: record.destination))
                {
                    return record.connection(.policyChanged, policy)
                }
                if !record.isEstablished { return record.connection(.upstreamConnectFailed) }
                if record.isOrderly { return record.connection(.none) }
                let isGone = [record.source.ip, record.destination.ip].contains { address in
                    guard let name = state.snapshot?.workload(at: address)?.name else { return true }
                    return !names.contains(name)
                }
                return record.connection(isGone ? .workloadGone : .reset)
            }
        }
        // One core counts them all: they need none of its time but this.
        plane.post(to: 0) { hub in hub.closedDirect(closed) }
    }
}

/// Why unchecked: the ring is made by the one who starts the thread and from then on touched by the thread alone.
private final class RingBox: @unchecked Sendable {
    let ring: ClosedFlows

    init(_ ring: consuming ClosedFlows) { self.ring = ring }
}

extension DirectRecord {
    fileprivate func connection(_ reason: Reason, _ policy: ObjectName? = nil) -> DirectConnection {
        DirectConnection(
            source: source, destination: destination, service: service, startedAt: startedAt, endedAt: endedAt,
            isEstablished: isEstablished, bytesFromClient: bytesSent, bytesToClient: bytesReceived,
            roundTripMicroseconds: roundTripMicroseconds, retransmits: retransmits, bytesAccelerated: bytesAccelerated,
            reason: reason, policy: policy)
    }
}
