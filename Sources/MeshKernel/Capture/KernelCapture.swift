internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
public import MeshModel
internal import Synchronization

/// Capture of the local workloads' TCP connections by eBPF.
///
///     connect() ─▶ cgroup hook: marks or refuses ─▶ route by mark over lo ─▶ sk_lookup ─▶ outbound listener
///     SYN from outside the namespace ───────────────────────────────────────▶ sk_lookup ─▶ inbound / tunnel listener
///
/// Invariants:
/// - Every map and link is pinned under `<bpffs>/culvert/<node>/v<ABI>`: when the daemon dies, the hooks stay and find
///   empty slots, so workloads are refused at once and nothing ever leaves in clear text.
/// - The next daemon takes the pins over: maps as they are, programs replaced in place, slots filled again. No event
///   passes unhooked in between.
/// - A workload's entry in `pods`, which turns the connect hook on, is made active last and removed first.
/// - Established connections are never touched.
///
/// All functions may be called from any thread and block for a few milliseconds at most (they enter the workload's
/// namespace on the calling thread and come back, without suspending).
public final class KernelCapture: Sendable {
    public let options: CaptureOptions
    /// The cgroup the hooks are attached to.
    public let attachPoint: String
    /// L0 or L1.
    public let level: CaptureLevel

    let pins: Pins
    let objects: CaptureObjects
    let proxyCgroup: ProxyCgroup
    let agent: AgentCgroups
    let witness: CaptureWitness
    /// The network namespace this process runs in.
    let ownNamespace: UInt64?
    let state: Mutex<State>

    struct State: Sendable {
        /// What is captured: by this daemon, or by an earlier one of the node whose pins were found.
        var workloads: [ObjectName: Record] = [:]
        var direct = DirectState()
        /// nil: another daemon has the node, or nobody.
        var lock: NodeLock?
        var closed = false
    }

    struct Record: Sendable {
        let handle: CaptureHandle
        /// nil: an earlier daemon captured it, and no `attach` has named its namespace yet.
        let namespace: Descriptor?
    }

    /// Takes the node's lock, loads the programs and attaches the connect hooks, or takes over what an earlier daemon of
    /// the node left pinned. May move the whole process to the cgroup `culvert-node.<node>` below the attach point.
    /// Call it before the first socket that connects out of a workload's namespace.
    /// - Parameters:
    ///   - level: L0 or L1. At L1 the proxy's own connects must pass the hooks, so the process always moves into the
    ///     hooked subtree.
    ///   - listeners: what a running daemon of the node hands over, by the inode of the namespace; nil when none does.
    ///     That daemon's own connections stay exempt from capture until `forgetOtherProxies`.
    public convenience init(
        options: CaptureOptions, level: CaptureLevel = .l0, takingOver listeners: [UInt64: CaptureListeners]? = nil
    ) throws(KernelError) {
        try self.init(options: options, level: level, takingOver: listeners, acceleration: nil)
    }

    /// - Parameters:
    ///   - acceleration: what to take the kernel for; nil: what a probe finds.
    ///   - cookies: who tells the cookies of namespaces.
    ///   - witness: told after each step of a capture.
    init(
        options: CaptureOptions, level: CaptureLevel = .l0, takingOver listeners: [UInt64: CaptureListeners]? = nil,
        acceleration: AccelerationFitness?, cookies: CookieSource = .probe(),
        witness: @escaping CaptureWitness = { _ in }
    ) throws(KernelError) {
        precondition(level <= .l1, "other levels have no lookup program")
        try Self.requireCapabilities()
        let pins = try Pins(options)
        let attachPoint = try CgroupMount.attachPoint(options)
        try Pins.requireBPFFS(at: options.bpffsPath)
        let agent = try AgentCgroups(options, attachPoint: attachPoint)
        try pins.make()
        let lock = try NodeLock.take(options, pins: pins.nodeDirectory)
        let objects = try CaptureObjects.load(
            pins: pins, level: level, acceleration: acceleration ?? .probe(),
            cookies: cookies)
        let migration = Migration(pins: pins, objects: objects, listeners: listeners ?? [:])
        try migration.prepare()
        let proxy = try ProxyCgroup.settle(
            process: getpid(), attachPoint: attachPoint, nodeName: options.nodeName, hooked: level == .l1)
        try Self.exempt(proxy, in: objects.proxyCgroups, alone: listeners == nil)
        agent.refresh(objects.agentCgroups)
        // What an earlier daemon allowed may be forbidden by now: until the rules are set anew the proxy decides.
        let direct = try objects.invalidateRules()
        try Self.attachHooks(objects, at: attachPoint, pins: pins)
        migration.finish()

        self.options = options
        self.attachPoint = attachPoint
        self.level = level
        self.pins = pins
        self.witness = witness
        self.objects = objects
        // Of this thread: the first one may be inside a workload's namespace at any time.
        ownNamespace = Files.inode("/proc/thread-self/ns/net")
        proxyCgroup = proxy
        self.agent = agent
        var state = State()
        state.direct = direct
        state.lock = lock
        for cookie in objects.pods.keys {
            guard let pod = objects.pods.value(for: cookie) else { continue }
            // An entry without a name was cut short while it was made: it captures nothing yet.
            guard let name = objects.names.value(for: cookie)?.objectName, state.workloads[name] == nil else {
                objects.release(cookie, pins: pins)
                continue
            }
            let handle = CaptureHandle(workload: name, cookie: cookie, slot: pod.slot, adopted: true, unplaced: 0)
            state.workloads[name] = Record(handle: handle, namespace: nil)
        }
        // Written before the entry that they are for: a daemon that died in between left them for nothing.
        for cookie in objects.names.keys where objects.pods.value(for: cookie) == nil { objects.names.remove(cookie) }
        objects.scopes.removeAll(besides: Set(state.workloads.values.map(\.handle.slot)))
        objects.removeStrayEndpoints()
        self.state = Mutex(state)
    }

    /// The counters of the capture programs, over all workloads.
    public func statistics() -> CaptureStatistics {
        var result = CaptureStatistics()
        for slot in objects.statistics.keys {
            if let counters = objects.statistics.sums(of: slot) { result.add(counters) }
        }
        return result
    }

    /// The counters of one captured workload; nil when it is not captured.
    public func statistics(of workload: ObjectName) -> CaptureStatistics? {
        guard let slot = state.withLock({ $0.workloads[workload]?.handle.slot }),
            let counters = objects.statistics.sums(of: slot)
        else { return nil }
        var result = CaptureStatistics()
        result.add(counters)
        return result
    }

    /// What the programs call a network namespace.
    func cookie(of namespace: Descriptor, place: String) throws(KernelError) -> UInt64 {
        try namespaceCookie(of: namespace, questions: objects.questions, place: place)
    }

    /// Looks for the cgroup of the node's agent again: a restarted service gets a new one.
    public func refreshAgent() { agent.refresh(objects.agentCgroups) }

    /// All captured workloads, by name, with those of an earlier daemon.
    public var workloads: [CaptureHandle] {
        state.withLock { state in state.workloads.values.map(\.handle).sorted { $0.workload < $1.workload } }
    }

    /// Workloads whose capture an earlier daemon left and no `attach` of this one has taken over yet. Their outbound
    /// connections are refused meanwhile.
    public var adoptable: [ObjectName] {
        state.withLock { state in state.workloads.filter { $0.value.namespace == nil }.keys.sorted() }
    }

    /// Removes everything: workloads, hooks, maps, pins, the proxy's cgroup. Live connections through the proxy lose
    /// their route; drain them first. Without this call, capture stays when the object goes or the process ends.
    public func uninstall() throws(KernelError) {
        var failure: KernelError?
        for handle in workloads {
            do throws(KernelError) { try detach(handle.workload) } catch { failure = failure ?? error }
        }
        state.withLock { $0.closed = true }
        // Connections that go on without us go on by TCP.
        try? objects.control.set(culvert_control(), for: 0)
        pins.remove()
        proxyCgroup.leave(process: getpid())
        NodeLock.removeFiles(options)
        // It holds the bpffs open.
        state.withLock { $0.lock = nil }
        if let failure { throw failure }
    }

    /// `uninstall()` for a node whose daemon is gone, of whatever version it was: frees its namespaces, hooks, pins,
    /// cgroup and what is in the run directory. Fails while the daemon runs. Interrupted, it can be called again.
    public static func uninstall(options: CaptureOptions) throws(KernelError) {
        let pins = try Pins(options)
        guard Files.inode(pins.nodeDirectory) != nil else { return }
        try pins.requireOwn()
        let lock = try NodeLock.take(options, pins: pins.nodeDirectory)
        defer { _ = lock }
        let versions = pins.versions.map { ($0, PinnedVersion($0)) }
        // Outbound first: nothing may be marked that is not steered.
        for directory in pins.versions {
            PinnedVersion.endShortcuts(directory)
            for name in Pins.hooks { unlink("\(directory)/\(name)") }
        }
        var failure: KernelError?
        for (directory, version) in versions {
            for link in Files.names(in: directory) where Pins.isLink(link) { unlink("\(directory)/\(link)") }
            for (cookie, entry) in version?.entries ?? [:] {
                failure = PinnedVersion.restore(entry.pod, cookie: cookie) ?? failure
            }
        }
        // The maps remember what a namespace was like: they stay for another attempt.
        if let failure { throw failure }
        pins.remove()
        ProxyCgroup.remove(options)
        NodeLock.removeFiles(options)
    }
}

extension KernelCapture {
    /// Refuses a process that lacks what capture needs, naming it: asked before anything is written to disk, too.
    public static func requireCapabilities() throws(KernelError) {
        let missing = Capability.needed.filter { !Capability.effective.contains($0) }.map(\.name)
        guard missing.isEmpty else {
            throw KernelError(
                .missingCapabilities(missing), "starting capture", at: "the daemon's process",
                cause: "it lacks \(missing.joined(separator: ", "))",
                remedy: "run as root, or grant the capabilities (container: securityContext.capabilities.add)")
        }
    }

    private static func exempt(
        _ proxy: ProxyCgroup, in cgroups: BPFMap<UInt64, UInt32>, alone: Bool
    ) throws(KernelError) {
        if let id = proxy.id { try cgroups.set(1, for: id) }
        if alone { for old in cgroups.keys where old != proxy.id { cgroups.remove(old) } }
    }

    private static func attachHooks(_ objects: CaptureObjects, at path: String, pins: Pins) throws(KernelError) {
        let raw = mesh_open(path)
        guard raw >= 0, let id = Files.inode(path) else {
            throw KernelError(
                .cgroupUnavailable, "opening the cgroup", at: path, code: raw, remedy: "check that it still exists")
        }
        let cgroup = Descriptor(adopting: raw)
        // What follows sockets comes first: a direct connection must not be made unseen.
        for (program, type, name) in [
            (objects.sockops, BPF_CGROUP_SOCK_OPS, "sockops"),
            (objects.getpeername4, BPF_CGROUP_INET4_GETPEERNAME, "getpeername4"),
            (objects.getpeername6, BPF_CGROUP_INET6_GETPEERNAME, "getpeername6"),
            (objects.connect4, BPF_CGROUP_INET4_CONNECT, "connect4"),
            (objects.connect6, BPF_CGROUP_INET6_CONNECT, "connect6"),
        ] + objects.dns.hooks {
            _ = try BPFLink.attach(
                program, to: cgroup.raw, target: id, type: type, pin: pins.path(name), what: "the hook \(name)")
        }
    }
}
