import Foundation
import Synchronization

/// Hosts and pods on one machine, made of network namespaces.
///
///       pod       pod               pod       pod
///        │ eth0    │                 │         │
///     ┌──┴─────────┴──┐           ┌──┴─────────┴──┐
///     │    node-1     │           │    node-2     │      a namespace a node: forwards, routes, no NAT
///     └──────┬────────┘           └──────┬────────┘
///            │ eth0                      │ eth0
///          ┌─┴───────────────────────────┴─┐
///          │             wire              │             a bridge: where packets between nodes are captured
///          └───────────────────────────────┘
///
/// Everything carries the lab's token, `cv<pid>-<random>`: the namespaces, the cgroup2 subtree and the folder below
/// `/run/culvert-lab`, which also holds a private bpffs. So labs run side by side with the same addresses, and what a
/// killed owner leaves behind can be told from the living (``sweep(includingKept:)``).
///
/// A node's cgroup holds its pods' cgroups and one for its proxy: what `culvert-node --cgroup` gets, so that a bug in a
/// hook can never cut off the rest of the machine.
///
/// ``tearDown()`` removes all of it, in an order in which nothing can come back: processes, mounts, namespaces (links go
/// with them), cgroups, the folder. A process of a lab dies with the owner, unless the lab is ``Lifetime/kept``.
public final class Lab: Sendable {
    public enum Lifetime: String, Sendable {
        /// Gone when its owner is gone.
        case owner
        /// Stays when its owner ends, until somebody sweeps it.
        case kept
    }

    struct State {
        var pods: [LabHost] = []
        var podNumbers: [Int: Int] = [:]
        var processes: [LabProcess] = []
        var captures: [PacketCapture] = []
        var commands = 0
        var isTornDown = false
    }

    /// The name in every name.
    public let token: String
    public let lifetime: Lifetime
    /// Its temporary folder, readable by every user.
    public let folder: String
    /// Its cgroup2 subtree; every node has a folder in it.
    public let cgroup: String
    /// A bpffs of its own.
    public let bpffs: String
    public let nodes: [LabHost]
    /// The namespace with the bridge between the nodes.
    public let wire: LabHost
    let state = Mutex(State())

    /// Makes a lab of nodes without pods. Needs root and iproute2.
    /// - Throws: `LabError`; nothing is left behind then.
    public static func make(nodes: Int = 2, lifetime: Lifetime = .owner) async throws -> Lab {
        guard geteuid() == 0 else {
            throw LabError(.notRoot, "a lab makes network namespaces, cgroups and mounts: run this as root")
        }
        try Programs.require(Programs.ofTheLab)
        let lab = try Lab(nodes: nodes, lifetime: lifetime)
        do {
            try lab.makeFolders()
            try await lab.makeNodes()
        } catch {
            lab.tearDownNow()
            throw error
        }
        return lab
    }

    /// Makes a lab, lends it and tears it down, whatever happens.
    public static func with<Value>(
        nodes: Int = 2, isolation: isolated (any Actor)? = #isolation, _ body: (Lab) async throws -> Value
    ) async throws -> Value {
        let lab = try await make(nodes: nodes)
        defer { lab.tearDownNow() }
        return try await body(lab)
    }

    private init(nodes count: Int, lifetime: Lifetime) throws(LabError) {
        precondition((1...99).contains(count), "a lab has 1 to 99 nodes")
        let token = LabToken.make()
        let group = "\(try Cgroup.mountPoint())/\(token)"
        self.token = token
        self.lifetime = lifetime
        folder = "\(LabToken.base)/\(token)"
        cgroup = group
        bpffs = "\(folder)/bpffs"
        wire = LabHost(
            name: "wire", namespacePath: "\(LabToken.namespaces)/\(token)-wire", cgroup: "\(group)/wire", v4: "",
            v6: "", nodeNumber: 0)
        nodes = (1...count).map { number in
            let plan = AddressPlan(node: number)
            return LabHost(
                name: "node-\(number)", namespacePath: "\(LabToken.namespaces)/\(token)-node-\(number)",
                cgroup: "\(group)/node-\(number)", v4: plan.nodeV4, v6: plan.nodeV6, nodeNumber: number)
        }
        LiveLabs.shared.add(self)
    }

    /// The pods made so far.
    public var pods: [LabHost] { state.withLock { $0.pods } }
    public var processes: [LabProcess] { state.withLock { $0.processes } }
    public var isTornDown: Bool { state.withLock { $0.isTornDown } }

    /// Every host by its short name.
    public func host(_ name: String) -> LabHost? {
        (nodes + [wire] + pods).first { $0.name == name }
    }

    /// Starts to read every packet between the nodes.
    /// - Parameter markers: texts to look for in everything that passes.
    public func capture(markers: [String] = []) throws -> PacketCapture {
        let capture = try PacketCapture(in: wire, markers: markers)
        state.withLock { $0.captures.append(capture) }
        return capture
    }

    // MARK: The end

    /// Removes everything. Does nothing the second time.
    public func tearDown() async {
        await withCheckedContinuation { continuation in
            Thread.detachNewThread { [self] in
                tearDownNow()
                continuation.resume()
            }
        }
    }

    /// The same, blocking: for `defer` and for the end of the process.
    public func tearDownNow() {
        let taken = state.withLock { state -> State? in
            guard !state.isTornDown else { return nil }
            state.isTornDown = true
            defer { state.captures = [] }
            return state
        }
        guard let taken else { return }
        let processes = taken.processes
        for capture in taken.captures { capture.orderStop() }
        for process in processes { process.send(SIGKILL) }
        Remains(token: token).remove { for process in processes { _ = process.status } }
        LiveLabs.shared.forget(self)
    }
}
