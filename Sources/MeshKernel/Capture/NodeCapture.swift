public import MeshModel

/// Capture of the local workloads' TCP connections, at the level this kernel allows.
///
/// What a caller may rely on is the same at every level: a connection that a workload opens reaches the outbound
/// listener with its destination, one from outside reaches the inbound or tunnel listener, what stays inside the
/// namespace is left alone, an absent proxy means refusal and never clear text, and `detach` puts back what was found.
/// Levels differ in where the proxy reads the original destination (`translatesDestinations`) and in the mark its own
/// sockets need (`proxyMark`).
///
/// All functions may be called from any thread and block for some milliseconds.
public final class NodeCapture: Sendable {
    public let level: CaptureLevel
    /// Why this level and no better one; empty when it was asked for or is the best.
    public let explanation: String

    private let mechanism: Mechanism

    private enum Mechanism: Sendable {
        case programs(KernelCapture)
        case rules(RedirectCapture)
    }

    /// Takes the node's lock and prepares capture, or takes over what an earlier daemon of the node left.
    /// - Parameters:
    ///   - wanted: nil: the level an earlier daemon left capture at, else the best one of this kernel. One that this
    ///     kernel cannot do, or that another capture of this node stands in the way of, is refused.
    ///   - listeners: what a running daemon of the node hands over, by the inode of the namespace; nil when none does.
    ///     Name that daemon's level then.
    public init(
        options: CaptureOptions, level wanted: CaptureLevel? = nil,
        takingOver listeners: [UInt64: CaptureListeners]? = nil
    ) throws(KernelError) {
        let choice = try Self.choose(wanted, options)
        level = choice.level
        explanation = choice.explanation
        switch choice.level {
        case .l0, .l1:
            mechanism = .programs(try KernelCapture(options: options, level: choice.level, takingOver: listeners))
        case .l2, .l3: mechanism = .rules(try RedirectCapture(options: options, level: choice.level))
        }
    }

    /// The programs and maps of capture by sk_lookup (L0, L1), which more than capture rests on; nil at other levels.
    public var programs: KernelCapture? {
        if case .programs(let capture) = mechanism { capture } else { nil }
    }

    /// Whether the proxy's sockets have addresses of their own and SO_ORIGINAL_DST says where a connection was going;
    /// else getsockname says it.
    public var translatesDestinations: Bool { level >= .l2 }

    /// SO_MARK for every socket the proxy opens inside a workload, the leg to the application apart; nil: none.
    public var proxyMark: UInt32? { level >= .l2 ? CaptureConstants.proxyMark : nil }

    /// Captures a workload, or brings its capture up to date (other addresses, new listeners): calling it twice is the
    /// same as calling it once. When it throws, a workload that was not captured before is not captured now.
    /// - Parameters:
    ///   - namespace: its network namespace; the descriptor is duplicated.
    ///   - addresses: all of the workload's addresses, 1…8. Connections of a family without one are refused.
    ///   - scope: what of its traffic is captured.
    ///   - listeners: made inside the namespace on the ports of `CaptureConstants`, listening, `IP_TRANSPARENT` set.
    @discardableResult
    public func attach(
        _ workload: ObjectName, namespace: Int32, addresses: [IPAddress], scope: CaptureScope = CaptureScope(),
        listeners: CaptureListeners
    ) throws(KernelError) -> CaptureOutcome {
        guard !addresses.isEmpty, addresses.count <= CaptureConstants.maximumAddresses else {
            throw KernelError(
                .badRequest, "capturing a workload", at: "\(workload)", cause: "it has \(addresses.count) addresses",
                remedy: "give it 1 to \(CaptureConstants.maximumAddresses) addresses")
        }
        let descriptor = try Descriptor(duplicating: namespace, what: "keeping the namespace", at: "\(workload)")
        switch mechanism {
        case .programs(let capture):
            let handle = try capture.attach(
                workload, namespace: namespace, cookie: capture.cookie(of: descriptor, place: "\(workload)"),
                addresses: addresses, scope: scope, listeners: listeners)
            return CaptureOutcome(adopted: handle.adopted, unplaced: handle.unplaced)
        case .rules(let capture):
            return try capture.attach(workload, namespace: descriptor, addresses: addresses, scope: scope)
        }
    }

    /// Changes which connections of a captured workload are the mesh's, for those that are made from now on. A workload
    /// that is not captured is none of its business.
    /// - Returns: how many entries found no room in the kernel's maps. What they keep out is captured.
    @discardableResult
    public func setScope(_ scope: CaptureScope, of workload: ObjectName) throws(KernelError) -> Int {
        switch mechanism {
        case .programs(let capture): return try capture.setScope(scope, of: workload)
        case .rules(let capture): return try capture.setScope(scope, of: workload)
        }
    }

    /// Why this kernel cannot capture DNS by UDP at this level; nil: it can.
    public var dnsObstacle: String? {
        if case .rules(let capture) = mechanism { capture.dnsObstacle } else { nil }
    }

    /// Begins or renews the capture of a workload's DNS by UDP: questions to any server but on loopback come to the
    /// proxy's server inside. It lives and dies with the workload's capture, and survives the daemon like it.
    /// - Parameters:
    ///   - namespace: the workload's network namespace.
    ///   - socket: UDP, both IP versions, made there on port 15053 of every address.
    /// - Returns: whom the questions that arrive at the socket are meant for.
    @discardableResult
    public func captureDNS(
        of workload: ObjectName, namespace: Int32, socket: Int32
    ) throws(KernelError) -> DNSOrigins {
        switch mechanism {
        case .programs(let capture):
            try capture.captureDNS(of: workload, namespace: namespace, socket: socket)
        case .rules(let capture): try capture.captureDNS(of: workload)
        }
    }

    /// Ends it: questions go where they are meant to. Workloads whose DNS is not captured are no error.
    public func releaseDNS(of workload: ObjectName) throws(KernelError) {
        switch mechanism {
        case .programs(let capture): capture.releaseDNS(of: workload)
        case .rules(let capture): try capture.releaseDNS(of: workload)
        }
    }

    /// Whether a workload's questions by UDP come to the proxy's server, present or not.
    public func capturesDNS(of workload: ObjectName) -> Bool {
        switch mechanism {
        case .programs(let capture): capture.condition(of: workload)?.capturesDNS ?? false
        case .rules(let capture): capture.capturesDNS(of: workload)
        }
    }

    /// Ends the capture of a workload and puts its namespace back as it was found. Unknown names are no error. Close
    /// the workload's proxied connections first: afterwards nothing keeps their packets inside.
    public func detach(_ workload: ObjectName) throws(KernelError) {
        switch mechanism {
        case .programs(let capture): try capture.detach(workload)
        case .rules(let capture): try capture.detach(workload)
        }
    }

    /// Lets go what an earlier daemon left: its workloads that are not in `wanted` and were not attached again. Call it
    /// once the first configuration has been applied. A wanted workload that could not be attached yet stays captured,
    /// that is, refused rather than in clear text.
    /// - Returns: the workloads let go.
    @discardableResult
    public func sweep(keeping wanted: Set<ObjectName>) -> [ObjectName] {
        switch mechanism {
        case .programs(let capture): capture.sweep(keeping: wanted)
        case .rules(let capture): capture.sweep(keeping: wanted)
        }
    }

    /// All captured workloads, with those of an earlier daemon.
    public var workloads: [ObjectName] {
        switch mechanism {
        case .programs(let capture): capture.workloads.map(\.workload)
        case .rules(let capture): capture.workloads
        }
    }

    /// Workloads whose capture an earlier daemon left and no `attach` of this one has taken over yet.
    public var adoptable: [ObjectName] {
        switch mechanism {
        case .programs(let capture): capture.adoptable
        case .rules(let capture): capture.adoptable
        }
    }

    /// Gives the node to another daemon: its lock is free, and this object writes nothing any more. What captures stays.
    public func release() {
        switch mechanism {
        case .programs(let capture): capture.release()
        case .rules(let capture): capture.release()
        }
    }

    /// The daemon that handed over is gone: only this process is exempt from capture now. (Rules of the packet filter
    /// know the proxy by a mark, which every daemon sets.)
    public func forgetOtherProxies() { programs?.forgetOtherProxies() }

    /// Removes everything. Without this call, capture stays when the object goes or the process ends.
    public func uninstall() throws(KernelError) {
        switch mechanism {
        case .programs(let capture): try capture.uninstall()
        case .rules(let capture): try capture.uninstall()
        }
    }

    /// `uninstall()` for a node whose daemon is gone, at whatever level it ran. Fails while the daemon runs.
    public static func uninstall(options: CaptureOptions) throws(KernelError) {
        try NodeLock.requireOwnDirectories(options)
        try KernelCapture.uninstall(options: options)
        for level in [CaptureLevel.l2, .l3] where RedirectRecords(options, level: level).exist {
            try RedirectCapture(options: options, level: level, isRemoval: true).uninstall()
            ProxyCgroup.remove(options)
        }
    }

    /// What the programs counted since they were loaded, over all workloads; nil at a level without programs (L3).
    public func statistics() -> CaptureStatistics? {
        switch mechanism {
        case .programs(let capture): capture.statistics()
        case .rules(let capture): capture.statistics()
        }
    }

    /// The counters of one captured workload; nil where there are none, or no such workload.
    public func statistics(of workload: ObjectName) -> CaptureStatistics? {
        switch mechanism {
        case .programs(let capture): capture.statistics(of: workload)
        case .rules(let capture): capture.statistics(of: workload)
        }
    }
}
