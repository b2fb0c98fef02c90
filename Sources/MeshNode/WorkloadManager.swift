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
        case request(Request)
    }

    /// From other parts of the daemon, done between two events.
    private enum Request {
        case release
        case takeBack(NodeKernel)
    }

    private struct Requests {
        var waiting: [CheckedContinuation<Void, Never>] = []
        var isOver = false
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
    /// nil while another daemon has the node: nothing is started then and no kernel state written.
    private let owned: Mutex<NodeKernel?>
    private let inheritance: Inheritance?
    /// What the daemon before this one serves and this one not yet, with the reasons, after every attempt.
    let inherited: AsyncStream<[ObjectName: String]>
    private let inheritedNews: AsyncStream<[ObjectName: String]>.Continuation
    private let events: AsyncStream<Event>
    private let inbox: AsyncStream<Event>.Continuation
    private let requests = Mutex(Requests())
    private let svids: SVIDStore
    private let starter: WorkloadStarter
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

    /// - Parameter inheritance: of the daemon that this one takes over from.
    init(
        nodeName: String, plane: DataPlane, kernel: NodeKernel, svids: SVIDStore, inheritance: Inheritance?,
        logger: Logger
    ) {
        self.nodeName = nodeName
        self.plane = plane
        owned = Mutex(kernel)
        self.inheritance = inheritance
        (inherited, inheritedNews) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(1))
        (events, inbox) = AsyncStream.makeStream()
        self.svids = svids
        starter = WorkloadStarter(plane: plane, svids: svids, logger: logger)
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
        await withTaskGroup(of: Void.self) { group in
            group.addTask { [logger, inbox] in
                do {
                    for await update in try source.updates() { inbox.yield(.configuration(update)) }
                } catch {
                    logger.error("configuration is not watched: \(error)")
                }
            }
            group.addTask { [inbox] in
                while !Task.isCancelled {
                    try? await Task.sleep(for: Self.interval)
                    inbox.yield(.tick)
                }
                inbox.finish()
            }
            var state = State()
            for await event in events {
                switch event {
                case .configuration(let update): await apply(update, &state)
                case .tick: await look(&state)
                case .request(let request):
                    await perform(request, &state)
                    answerRequests(last: false)
                }
                if Task.isCancelled { break }
            }
            answerRequests(last: true)
            group.cancelAll()
        }
    }

    /// nil while another daemon has the node.
    private var kernel: NodeKernel? { owned.withLock { $0 } }

    // MARK: Hand-over

    /// Writes no kernel state from the return on; connections are served as before.
    func release() async { await request(.release) }

    /// Captures with `kernel` what is served, and goes on as usual.
    func takeBack(_ kernel: NodeKernel) async { await request(.takeBack(kernel)) }

    private func request(_ request: Request) async {
        await withCheckedContinuation { continuation in
            let isOver = requests.withLock { requests in
                if !requests.isOver { requests.waiting.append(continuation) }
                return requests.isOver
            }
            if isOver { continuation.resume() } else { inbox.yield(.request(request)) }
        }
    }

    private func answerRequests(last: Bool) {
        let waiting = requests.withLock { requests in
            if last { requests.isOver = true }
            defer { requests.waiting.removeAll() }
            return requests.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    private func perform(_ request: Request, _ state: inout State) async {
        switch request {
        case .release: owned.withLock { $0 = nil }
        case .takeBack(let kernel):
            owned.withLock { $0 = kernel }
            do {
                try await recapture(&state, kernel)
            } catch {
                // Served anew, over what runs.
                logger.error("workloads are started again: \(error)")
                for name in state.live.keys { state.live[name]?.isOutdated = true }
            }
            await startMissing(&state)
            adjustDNS(&state)
            refreshDirect(state)
            for name in kernel.capture.sweep(keeping: Set(state.wanted.keys)) {
                logger.info("workload \(name) is released")
            }
        }
    }

    /// Brings the kernel's side of what is served up to date: another daemon may have changed it.
    private func recapture(_ state: inout State, _ kernel: NodeKernel) async throws {
        let copies = try await plane.copyListeners()
        defer { for copy in copies { Socket.close(copy.descriptor) } }
        for (name, live) in state.live where !live.isOutdated {
            func first(_ purpose: ListenerPurpose) -> Int32 {
                copies.first { $0.workload == name && $0.purpose == purpose }?.descriptor ?? -1
            }
            let (namespace, scope) = (live.namespace.descriptor, live.workload.scope)
            try kernel.capture.attach(
                name, namespace: namespace, addresses: live.workload.addresses, scope: scope,
                listeners: CaptureListeners(
                    outbound: first(.outbound), inbound: first(.inbound), tunnel: first(.tunnel)))
            switch live.hasDNS {
            case true?:
                try kernel.dns?.renew(name, in: live.namespace, datagrams: first(.dnsDatagrams))
            case false?: try kernel.dns?.release(name)
            case nil: break
            }
        }
    }

    /// After the first configuration: what an earlier daemon captured and this configuration does not name is let go,
    /// once everything that a running one serves is served here.
    private func finishAdoption(_ state: inout State) {
        guard state.isAdopting, let kernel else { return }
        if let inheritance {
            for live in state.live.values where !live.isOutdated && (kernel.dns == nil || live.hasDNS != nil) {
                inheritance.served(inNamespace: live.namespace.inode)
            }
            let problems = status.withLock { $0.problems }
            var missing: [ObjectName: String] = [:]
            for name in inheritance.waiting where state.wanted[name] != nil {
                missing[name] =
                    problems[name]
                    ?? (state.live[name] == nil
                        ? "it waits for the others" : "the running proxy serves it in another network namespace")
            }
            inheritedNews.yield(missing)
            guard missing.isEmpty else { return }
        }
        state.isAdopting = false
        for name in kernel.capture.sweep(keeping: Set(state.wanted.keys)) {
            logger.info("workload \(name) of an earlier run is released")
        }
        inheritance?.dropAll()
    }

    // MARK: Configuration

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
        finishAdoption(&state)
        status.withLock { $0.isStarted = true }
    }

    /// Retries what failed, and notices namespaces that were replaced.
    private func look(_ state: inout State) async {
        kernel?.direct?.tick()
        kernel?.capture.programs?.refreshAgent()
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
        if state.snapshot != nil { finishAdoption(&state) }
    }

    /// Captures the DNS of the workloads that want it, tries again where that failed, and lets go where it is not wanted
    /// any more.
    private func adjustDNS(_ state: inout State) {
        guard let dns = kernel?.dns, let snapshot = state.snapshot else { return }
        for (name, live) in state.live where !live.isOutdated {
            let isWanted = snapshot.capturesDNS(live.workload)
            guard live.hasDNS != isWanted else { continue }
            do {
                if isWanted {
                    try dns.start(
                        name, in: live.namespace, inherited: inheritance?.dns(inNamespace: live.namespace.inode))
                } else {
                    try dns.stop(name)
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
        kernel?.direct?.refresh(
            snapshot,
            live: state.live.compactMap { name, live in live.isOutdated ? nil : snapshot.workload(named: name) })
    }

    private func startMissing(_ state: inout State) async {
        guard let kernel else { return }
        var inheriting: [WorkloadStarter.Ready] = []
        for (name, workload) in state.wanted where state.live[name]?.isOutdated ?? true {
            do {
                let ready = try await starter.prepare(workload)
                if inheritance?.hasListeners(inNamespace: ready.namespace.inode) ?? false {
                    inheriting.append(ready)
                } else {
                    try await starter.start(ready, kernel.capture)
                    wentLive(ready, &state)
                }
            } catch {
                report(name, "\(error)")
            }
        }
        let names = Set(inheriting.map(\.workload.name))
        let isWhole =
            !state.isAdopting
            || inheritance?.waiting.allSatisfy {
                state.wanted[$0] == nil || state.live[$0] != nil || names.contains($0)
            } ?? true
        // Not one before all can be: a hand-over that fails has then not cost a connection. And every core knows all of
        // them before it accepts for one: they call each other from the first connection on.
        if !isWhole { inheriting.removeAll() }
        for ready in inheriting { starter.add(ready) }
        for ready in inheriting {
            do {
                guard let handed = try inheritance?.listeners(inNamespace: ready.namespace.inode) else { continue }
                try await starter.start(ready, kernel.capture, on: handed)
                wentLive(ready, &state)
            } catch {
                report(ready.workload.name, "\(error)")
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

    private func wentLive(_ ready: WorkloadStarter.Ready, _ state: inout State) {
        let name = ready.workload.name
        let before = state.live[name]?.workload.identity
        state.live[name] = Live(workload: ready.workload, namespace: ready.namespace)
        if let before { forget(before, state) }
        report(name, nil)
    }

    /// Applies what can change without new listeners, for connections made from now on.
    /// - Returns: false when it could not be done: the workload has to be started anew.
    private func adjust(_ workload: Workload, before: Workload) -> Bool {
        guard workload.scope != before.scope, let kernel else { return true }
        do {
            starter.reportScope(of: workload, unplaced: try kernel.capture.setScope(workload.scope, of: workload.name))
            if workload.scope.isWhole { logger.info("workload \(workload.name) is captured whole again") }
            return true
        } catch {
            logger.error("what is captured of \(workload.name) stays as it was: \(error)")
            return false
        }
    }

    private func stop(_ name: ObjectName, _ live: Live, _ state: inout State) async {
        state.live[name] = nil
        // First, while their packets are still kept inside: the application learns that its connections end.
        plane.post { $0.remove(name) }
        _ = await plane.openConnections()
        do {
            try kernel?.capture.detach(name)
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
