internal import Glibc
internal import Logging
internal import MeshAdmin
internal import MeshIdentity
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import ServiceLifecycle
internal import Synchronization

/// What only one daemon of a node can have: capture with its lock, the identity socket, the ports of the endpoints. It
/// is given up to a newer daemon while connections go on being served, and taken back if that one fails.
final class NodePlace: Sendable {
    private struct State {
        var kernel: NodeKernel
        /// Whether the kernel's records are read here.
        var isReading = true
        var identity: IdentityServer?
        var endpoints: Pausable?
        /// Its ports may be held by another daemon that is ending, or is to end.
        var waitsForPorts: Bool
        /// Why this process has the node only in part; nil: it does not, or was never without it.
        var obstacle: String?
    }

    private let options: CaptureOptions
    private let takeoverLimit: Duration
    private let workloads: WorkloadManager
    private let plane: DataPlane
    private let logger: Logger
    private let makeKernel: @Sendable (NodeCapture) throws -> NodeKernel
    private let makeIdentity: @Sendable () throws -> IdentityServer
    private let state: Mutex<State>

    /// How long it may take to give the place back. What has not ended by then hangs.
    private static let giveBackLimit = Duration.seconds(5)
    /// How often something that goes on is said again.
    private static let reminderPause = Duration.seconds(60)
    /// How long questions that were taken may wait for their answers: more than one may at all (`Limits`).
    private static let questionLimit = Duration.seconds(5)
    /// What a daemon that ends right now still holds is free a moment later.
    private static let retryPause = Duration.milliseconds(100)

    /// - Parameters:
    ///   - isTakingOver: a running daemon of the node hands over.
    ///   - takeoverLimit: how long this one may take then until it serves all that the running one served.
    init(
        _ options: CaptureOptions, isTakingOver: Bool, takeoverLimit: Duration, kernel: NodeKernel,
        workloads: WorkloadManager, plane: DataPlane, logger: Logger,
        makeKernel: @escaping @Sendable (NodeCapture) throws -> NodeKernel,
        makeIdentity: @escaping @Sendable () throws -> IdentityServer
    ) throws {
        self.options = options
        self.takeoverLimit = takeoverLimit
        self.workloads = workloads
        self.plane = plane
        self.logger = logger
        self.makeKernel = makeKernel
        self.makeIdentity = makeIdentity
        state = Mutex(State(kernel: kernel, identity: try makeIdentity(), waitsForPorts: isTakingOver))
    }

    /// For readiness: why this process has the node only in part.
    var obstacle: String? { state.withLock { $0.obstacle } }

    var kernel: NodeKernel { state.withLock { $0.kernel } }

    func own(_ endpoints: Pausable) { state.withLock { $0.endpoints = endpoints } }

    /// Serves the endpoints. Where another daemon has or had the node, ports that are not free yet are waited for.
    func serve(_ admin: AdminServer) async throws {
        var isTold = false
        while true {
            do {
                return try await admin.run()
            } catch let error as AdminError where state.withLock({ $0.waitsForPorts }) {
                if !isTold { logger.warning("\(error); trying again") }
                isTold = true
                try await Task.sleep(for: Self.retryPause)
            }
        }
    }

    /// Ends the identity socket and the reading of records.
    func stop() {
        takeIdentity()?.stop()
        stopReading()
    }

    private func stopReading() {
        let reading = state.withLock { state in
            defer { state.isReading = false }
            return state.isReading ? state.kernel : nil
        }
        reading?.stop()
    }

    private func takeIdentity() -> IdentityServer? {
        state.withLock { state in
            defer { state.identity = nil }
            return state.identity
        }
    }

    // MARK: Giving up

    /// Gives up the place.
    /// - Returns: the messages that name the listeners, with their descriptors, which are the caller's.
    func release() async throws -> [(HandoverMessage, [Int32])] {
        await workloads.release()
        try await giveUpPlace()
        let groups = Self.byNamespace(try await plane.copyListeners())
        kernel.capture.release()
        return groups.flatMap { namespace, listeners in
            listeners.sockets.map { purpose, sockets in
                let message = HandoverMessage.listeners(
                    workload: listeners.workload, namespace: namespace, purpose: purpose.rawValue)
                return (message, sockets)
            }
        }
    }

    /// Two cannot listen on one port, nor read from one ring.
    private func giveUpPlace() async throws {
        await state.withLock { $0.endpoints }?.pause()
        try await onThread { [self] in stop() }
    }

    private static func byNamespace(_ copies: [ListenerCopy]) -> [UInt64: InheritedListeners] {
        var groups: [UInt64: InheritedListeners] = [:]
        for copy in copies {
            groups[copy.namespace, default: InheritedListeners(workload: copy.workload)]
                .sockets[copy.purpose, default: []].append(copy.descriptor)
        }
        return groups
    }

    /// The other daemon serves everything. What this one has begun it finishes.
    func leave() async {
        // They may serve again, to say that it was late.
        await state.withLock { $0.endpoints }?.pause()
        await plane.leaveDNS(within: Self.questionLimit)
    }

    /// The other daemon has the place and hangs. The endpoints serve again, as far as it leaves their ports free, so that
    /// it can be seen.
    func reportSilence(_ text: String) {
        logger.error("\(text)")
        showObstacle(text)
    }

    private func showObstacle(_ text: String) {
        state.withLock { state in
            state.obstacle = text
            state.waitsForPorts = true
        }
        state.withLock { $0.endpoints }?.resume()
    }

    /// Has the place again after the other daemon gave up. It may take a moment until that one is wholly gone.
    func takeBack() async {
        showObstacle("the node is taken back after a hand-over that failed")
        kernel.capture.release()
        guard let kernel = await retried({ [self] in try await capture() }), let identity = await retried(makeIdentity)
        else { return }
        state.withLock { state in
            state.kernel = kernel
            state.isReading = true
            state.identity = identity
        }
        await workloads.takeBack(kernel)
        state.withLock { $0.obstacle = nil }
        logger.info("this process has the node again")
    }

    private func capture() async throws -> NodeKernel {
        let copies = try await plane.copyListeners()
        defer { for copy in copies { Socket.close(copy.descriptor) } }
        let capture = try NodeCapture(
            options: options, level: kernel.capture.level,
            takingOver: Self.byNamespace(copies).compactMapValues(\.capture))
        do { return try makeKernel(capture) } catch {
            capture.release()
            throw error
        }
    }

    /// No other daemon of the node lives.
    func isAlone() { kernel.capture.forgetOtherProxies() }

    /// Tries until it succeeds; nil when the daemon is stopped meanwhile. Until then readiness says what is in the way,
    /// and so does the log, at first and now and then.
    private func retried<Value: Sendable>(_ body: () async throws -> Value) async -> Value? {
        var said = (text: "", at: ContinuousClock.now)
        while !Task.isCancelled {
            do { return try await body() } catch {
                let text = "taking the node back: \(error)"
                if text != said.text || said.at.duration(to: .now) >= Self.reminderPause {
                    logger.error("\(text)")
                    said = (text, .now)
                }
                state.withLock { $0.obstacle = text }
                try? await Task.sleep(for: Self.retryPause)
            }
        }
        return nil
    }

    // MARK: Taking over

    /// Waits until everything that the daemon before served is served here, and tells it so. Throws when that takes too
    /// long: the daemon before has the node again then, and goes on.
    func settle(_ inheritance: Inheritance) async throws {
        let missing = Mutex<[ObjectName: String]?>(nil)
        // A clock of its own: where an attempt to start a workload hangs, there is no news either.
        let isWhole = await finished(within: takeoverLimit) { [workloads] in
            for await news in workloads.inherited {
                missing.withLock { $0 = news }
                if news.isEmpty { break }
            }
        }
        try Task.checkCancellation()
        guard isWhole else { return try await giveBack(inheritance, missing.withLock { $0 }) }
        try await inheritance.settle()
    }

    /// Waits for the end of the daemon before.
    func outlive(_ inheritance: Inheritance) async throws {
        try await inheritance.outlive()
        isAlone()
        logger.info("process \(inheritance.process) has ended; this process has the node for itself")
    }

    /// - Parameter missing: what is not served, with the reasons; nil: not even one attempt has ended.
    private func giveBack(_ inheritance: Inheritance, _ missing: [ObjectName: String]?) async throws {
        let list = missing?.sorted { $0.key < $1.key }.map { "workload \($0.key): \($0.value)" }
        let failure = NodeError(
            "not everything that process \(inheritance.process) serves could be taken over within "
                + "\(takeoverLimit); it goes on serving. \(list?.joined(separator: "; ") ?? "Starting its workloads hangs")"
        )
        let isDone = await finished(within: Self.giveBackLimit) { [self] in
            await workloads.release()
            try? await giveUpPlace()
            kernel.capture.release()
            inheritance.abandon()
        }
        guard !isDone else { throw failure }
        // Stopped meanwhile: it ends anyway.
        try Task.checkCancellation()
        // What hangs cannot be waited for, and could write kernel state later. The end of this process gives everything
        // back; it costs what was accepted for workloads that did start.
        logger.critical("\(failure); this process cannot give the node back in order and ends at once")
        _exit(1)
    }

    /// Whether `body` ended within the limit. One that does not is left to itself.
    private func finished(
        within limit: Duration, _ body: @escaping @Sendable () async -> Void
    ) async -> Bool {
        let (ends, end) = AsyncStream.makeStream(of: Bool.self)
        let work = Task {
            await body()
            end.yield(true)
        }
        let clock = Task {
            try await Task.sleep(for: limit)
            end.yield(false)
        }
        defer {
            work.cancel()
            clock.cancel()
        }
        return await ends.first { _ in true } ?? false
    }
}
