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
        /// Its ports may still be held by a daemon that is ending.
        var isTakenBack = false
    }

    private let options: CaptureOptions
    private let workloads: WorkloadManager
    private let plane: DataPlane
    private let logger: Logger
    private let makeKernel: @Sendable (NodeCapture) throws -> NodeKernel
    private let makeIdentity: @Sendable () throws -> IdentityServer
    private let state: Mutex<State>

    /// How long a newer daemon may take until it serves all that the running one served.
    private static let takeoverLimit = Duration.seconds(30)
    /// How long questions that were taken may wait for their answers: more than one may at all (`Limits`).
    private static let questionLimit = Duration.seconds(5)
    /// What a daemon that ends right now still holds is free a moment later.
    private static let retryPause = Duration.milliseconds(100)

    init(
        _ options: CaptureOptions, kernel: NodeKernel, workloads: WorkloadManager, plane: DataPlane, logger: Logger,
        makeKernel: @escaping @Sendable (NodeCapture) throws -> NodeKernel,
        makeIdentity: @escaping @Sendable () throws -> IdentityServer
    ) throws {
        self.options = options
        self.workloads = workloads
        self.plane = plane
        self.logger = logger
        self.makeKernel = makeKernel
        self.makeIdentity = makeIdentity
        state = Mutex(State(kernel: kernel, identity: try makeIdentity()))
    }

    var kernel: NodeKernel { state.withLock { $0.kernel } }

    func own(_ endpoints: Pausable) { state.withLock { $0.endpoints = endpoints } }

    /// Serves the endpoints. After a hand-over that failed, ports that are not free yet are waited for.
    func serve(_ admin: AdminServer) async throws {
        var isTold = false
        while true {
            do {
                return try await admin.run()
            } catch let error as AdminError where state.withLock({ $0.isTakenBack }) {
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
    func leave() async { await plane.leaveDNS(within: Self.questionLimit) }

    /// Has the place again after the other daemon gave up. It may take a moment until that one is wholly gone.
    func takeBack() async {
        state.withLock { $0.isTakenBack = true }
        kernel.capture.release()
        guard let kernel = await retried({ [self] in try await capture() }), let identity = await retried(makeIdentity)
        else { return }
        state.withLock { state in
            state.kernel = kernel
            state.isReading = true
            state.identity = identity
        }
        await workloads.takeBack(kernel)
        state.withLock { $0.endpoints }?.resume()
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

    /// Tries until it succeeds; nil when the daemon is stopped meanwhile.
    private func retried<Value: Sendable>(_ body: () async throws -> Value) async -> Value? {
        var last = ""
        while !Task.isCancelled {
            do { return try await body() } catch {
                if "\(error)" != last { logger.error("taking the node back: \(error)") }
                last = "\(error)"
                try? await Task.sleep(for: Self.retryPause)
            }
        }
        return nil
    }

    // MARK: Taking over

    /// Waits until everything that the daemon before served is served here, and tells it so. Throws when that takes too
    /// long: the daemon before has the node again then, and goes on.
    func settle(_ inheritance: Inheritance) async throws {
        let deadline = ContinuousClock.now.advanced(by: Self.takeoverLimit)
        for await missing in workloads.inherited {
            if missing.isEmpty { break }
            guard ContinuousClock.now < deadline else { return try await giveBack(inheritance, missing) }
        }
        try Task.checkCancellation()
        try await inheritance.settle()
    }

    /// Waits for the end of the daemon before.
    func outlive(_ inheritance: Inheritance) async throws {
        try await inheritance.outlive()
        isAlone()
        logger.info("process \(inheritance.process) has ended; this process has the node for itself")
    }

    private func giveBack(_ inheritance: Inheritance, _ missing: [ObjectName: String]) async throws {
        await workloads.release()
        try await giveUpPlace()
        kernel.capture.release()
        inheritance.abandon()
        let list = missing.sorted { $0.key < $1.key }.map { "workload \($0.key): \($0.value)" }
        throw NodeError(
            "not everything that process \(inheritance.process) serves could be taken over within "
                + "\(Self.takeoverLimit); it goes on serving. \(list.joined(separator: "; "))")
    }
}
