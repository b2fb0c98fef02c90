internal import Logging
internal import MeshDiscovery
internal import MeshIdentity
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import MeshTLS
internal import Synchronization

/// Brings the local workloads of the configuration to life and keeps them so: network namespace, certificate,
/// listeners on every core, capture. One workload's trouble is its own: it is reported not ready and tried again.
final class WorkloadManager: Sendable {
    private struct Live {
        var workload: Workload
        let namespace: NetworkNamespace
        /// It changed: to be started anew over what runs, so that there is no moment without capture.
        var isOutdated = false
        /// Whether its DNS is captured; nil: as an earlier daemon left it.
        var hasDNS: Bool?
    }

    private enum Event {
        case configuration(FileSource.Update)
        case tick
    }

    /// Touched only by `follow`, which is called once.
    private struct State {
        var live: [ObjectName: Live] = [:]
        var wanted: [ObjectName: Workload] = [:]
        /// What is applied; nil before the first configuration.
        var snapshot: MeshSnapshot?
        var isAdopting = true
    }

    private let nodeName: String
    private let plane: DataPlane
    private let kernel: NodeCapture
    private let svids: SVIDStore
    /// nil at levels without direct connections.
    private let direct: DirectTraffic?
    /// nil at levels without DNS capture.
    private let dns: PodDNS?
    private let logger: Logger
    /// What readiness says: workload → why it is not served. nil key: the configuration as a whole.
    private let status = Mutex(Status())

    struct Status {
        var problems: [ObjectName: String] = [:]
        var live = 0
        var configurationProblem: String?
        var isStarted = false
    }

    /// How often a workload that could not be started is tried again, and namespaces are looked after.
    private static let interval = Duration.seconds(1)

    init(
        nodeName: String, plane: DataPlane, kernel: NodeCapture, svids: SVIDStore, direct: DirectTraffic?,
        logger: Logger
    ) {
        self.nodeName = nodeName
        self.plane = plane
        self.kernel = kernel
        self.svids = svids
        self.direct = direct
        dns = kernel.programs.map { PodDNS(plane: plane, kernel: $0, logger: logger) }
        self.logger = logger
    }

    var currentStatus: Status { status.withLock { $0 } }

    /// What is not ready, in words.
    var notReady: [String] {
        status.withLock { status in
            var lines = status.problems.sorted { $0.key < $1.key }.map { "workload \($0.key): \($0.value)" }
            if !status.isStarted { lines.append("the configuration is not applied yet") }
            return lines
        }
    }

    /// Applies every state of the configuration until cancelled.
    func follow(_ source: FileSource) async {
        let (events, continuation) = AsyncStream.makeStream(of: Event.self)
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [logger] in
                do {
                    for await update in try source.updates() { continuation.yield(.configuration(update)) }
                } catch {
                    logger.error("configuration is not watched: \(error)")
                }
            }
            group.addTask {
                while !Task.isCancelled {
                    try? await Task.sleep(for: Self.interval)
                    continuation.yield(.tick)
                }
                continuation.finish()
            }
            var state = State()
            for await event in events {
                switch event {
                case .configuration(let update): await apply(update, &state)
                case .tick: await look(&state)
                }
                if Task.isCancelled { break }
            }
            group.cancelAll()
        }
    }

    private func apply(_ update: FileSource.Update, _ state: inout State) async {
        if let failure = update.failure {
            logger.error("configuration refused, the last good one keeps serving: \(failure.description)")
            status.withLock { $0.configurationProblem = failure.description }
            return
        }
        status.withLock { $0.configurationProblem = nil }
        let snapshot = update.state.snapshot
        logger.info(
            "configuration \(snapshot.generation): \(snapshot.workloads.count) workloads, \(snapshot.services.count) services"
        )
        plane.post { $0.install(snapshot) }
        state.snapshot = snapshot
        // Starting workloads may take its time; what policy takes back must not wait for it.
        refreshDirect(state)
        state.wanted = Dictionary(
            snapshot.localWorkloads(node: nodeName).map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        for (name, live) in state.live {
            guard let wanted = state.wanted[name] else {
                await stop(name, live, &state)
                continue
            }
            if wanted.isServedLike(live.workload), adjust(wanted, before: live.workload) {
                state.live[name]?.workload = wanted
            } else {
                state.live[name]?.isOutdated = true
            }
        }
        await startMissing(&state)
        adjustDNS(&state)
        refreshDirect(state)
        if state.isAdopting {
            state.isAdopting = false
            // Workloads of an earlier run that this configuration does not name.
            for name in kernel.sweep(keeping: Set(state.wanted.keys)) {
                logger.info("workload \(name) of an earlier run is released")
            }
        }
        status.withLock { $0.isStarted = true }
    }

    /// Retries what failed, and notices namespaces that were replaced.
    private func look(_ state: inout State) async {
        direct?.sweep()
        kernel.programs?.refreshAgent()
        let before = state.live.keys
        for (name, live) in state.live {
            guard let path = live.workload.netns else { continue }
            if (try? NetworkNamespace(path: path).inode) != live.namespace.inode {
                logger.warning("network namespace \(path) of \(name) is gone or replaced")
                await stop(name, live, &state)
            }
        }
        await startMissing(&state)
        adjustDNS(&state)
        if state.live.keys != before { refreshDirect(state) }
    }

    /// Captures the DNS of the workloads that want it, tries again where that failed, and lets go where it is not wanted
    /// any more.
    private func adjustDNS(_ state: inout State) {
        guard let dns, let snapshot = state.snapshot else { return }
        for (name, live) in state.live where !live.isOutdated {
            let isWanted = snapshot.capturesDNS(live.workload)
            guard live.hasDNS != isWanted else { continue }
            do {
                if isWanted {
                    try dns.start(name, in: live.namespace)
                } else {
                    dns.stop(name)
                }
                state.live[name]?.hasDNS = isWanted
                if status.withLock({ $0.problems[name] != nil }) { report(name, nil) }
            } catch {
                report(name, "\(error)")
            }
        }
    }

    /// Tells the kernel which of the workloads that are served now may talk without the proxy.
    private func refreshDirect(_ state: State) {
        guard let snapshot = state.snapshot else { return }
        // As the configuration has them now: a workload may wait to be started anew with what it has become.
        direct?.refresh(
            snapshot,
            live: state.live.compactMap { name, live in live.isOutdated ? nil : snapshot.workload(named: name) })
    }

    private func startMissing(_ state: inout State) async {
        for (name, workload) in state.wanted where state.live[name]?.isOutdated ?? true {
            do {
                let before = state.live[name]?.workload.identity
                state.live[name] = try await start(workload)
                if let before { forget(before, state) }
                report(name, nil)
            } catch {
                report(name, "\(error)")
            }
        }
        let wanted = state.wanted
        let live = state.live.count
        status.withLock { status in
            status.problems = status.problems.filter { wanted[$0.key] != nil }
            status.live = live
        }
    }

    /// Reports a change of a workload's condition once, not every second.
    private func report(_ name: ObjectName, _ problem: String?) {
        let isNews = status.withLock { status in
            defer { status.problems[name] = problem }
            return status.problems[name] != problem || problem == nil
        }
        guard isNews else { return }
        if let problem {
            logger.error("workload \(name) is not ready: \(problem)")
        } else {
            logger.info("workload \(name) is served")
        }
    }

    private func start(_ workload: Workload) async throws -> Live {
        guard let path = workload.netns else { throw NodeError("it has no netns") }
        let namespace = try NetworkNamespace(path: path)
        let svid = try await svids.svid(for: workload.identity)
        let context = try TLSContext(svid: svid)
        var listeners: PodListeners
        do {
            listeners = try PodListeners(in: namespace, cores: plane.coreCount)
        } catch let taken as PodListeners.PortTaken {
            throw NodeError(
                "port \(taken.port) cannot be had inside the workload (\(taken.cause)); the proxy needs 15001, 15006 and "
                    + "15008 there: stop what listens on it")
        }
        for index in 0..<plane.coreCount {
            let (outbound, inbound, tunnel) = listeners.ofCore(index)
            plane.post(to: index) { [logger] hub in
                do {
                    try hub.add(
                        workload, namespace: namespace, tls: context, outbound: outbound, inbound: inbound,
                        tunnel: tunnel)
                } catch {
                    logger.error("listeners of \(workload.name) on core \(index): \(error)")
                }
            }
        }
        // Only when every core accepts may connections be steered to them.
        _ = await plane.openConnections()
        do {
            try kernel.attach(
                workload.name, namespace: namespace.descriptor, addresses: workload.addresses, scope: workload.scope,
                listeners: listeners.first)
            reportScope(of: workload, unplaced: try kernel.setScope(workload.scope, of: workload.name))
        } catch {
            plane.post { $0.remove(workload.name) }
            throw error
        }
        return Live(workload: workload, namespace: namespace)
    }

    /// Applies what can change without new listeners, for connections made from now on.
    /// - Returns: false when it could not be done: the workload has to be started anew.
    private func adjust(_ workload: Workload, before: Workload) -> Bool {
        guard workload.scope != before.scope else { return true }
        do {
            reportScope(of: workload, unplaced: try kernel.setScope(workload.scope, of: workload.name))
            if workload.scope.isWhole { logger.info("workload \(workload.name) is captured whole again") }
            return true
        } catch {
            logger.error("what is captured of \(workload.name) stays as it was: \(error)")
            return false
        }
    }

    /// What an operator keeps out of the mesh is said aloud: nobody should learn it from a packet trace.
    private func reportScope(of workload: Workload, unplaced: Int) {
        if !workload.scope.isWhole {
            logger.warning(
                """
                workload \(workload.name) has traffic in clear text and without policy, as its annotations say: \
                captured is \(workload.scope)
                """)
        }
        if unplaced > 0 {
            logger.warning(
                "\(unplaced) exclusions of \(workload.name) found no room in the kernel's map: that traffic is captured"
            )
        }
    }

    private func stop(_ name: ObjectName, _ live: Live, _ state: inout State) async {
        state.live[name] = nil
        // First, while their packets are still kept inside: the application learns that its connections end.
        plane.post { $0.remove(name) }
        _ = await plane.openConnections()
        do {
            try kernel.detach(name)
        } catch {
            logger.warning("capture of \(name) was not removed whole: \(error)")
        }
        forget(live.workload.identity, state)
        logger.info("workload \(name) is released")
    }

    /// Drops the key of an identity that no workload has any more.
    private func forget(_ identity: SPIFFEID, _ state: State) {
        if !state.live.values.contains(where: { $0.workload.identity == identity }) { svids.forget(identity) }
    }
}

extension Workload {
    /// Whether a change from `other` can be taken over by the running listeners and certificate.
    fileprivate func isServedLike(_ other: Workload) -> Bool {
        netns == other.netns && addresses == other.addresses && identity == other.identity
    }
}
