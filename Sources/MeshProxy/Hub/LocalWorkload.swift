public import MeshModel
public import MeshRuntime
public import MeshTLS

/// A workload that this proxy speaks for, as one core sees it: its network namespace, its certificate, its listeners,
/// its pool of sessions. A waypoint is its own only workload, without a namespace to enter.
public final class LocalWorkload {
    public internal(set) var workload: Workload
    public let namespace: NetworkNamespace?
    /// Built from the current SVID; nil until the first one arrived.
    public internal(set) var tls: TLSContext?
    unowned let hub: ProxyCore
    lazy var pool = TunnelPool(hub: hub, workload: self) { [unowned self] address throws(SystemError) in
        try connect(to: address)
    }
    var acceptors: [(purpose: ListenerPurpose, acceptor: Acceptor)] = []
    var servers: [ObjectIdentifier: TunnelServer] = [:]
    let dns = WorkloadDNS()

    init(_ workload: Workload, namespace: NetworkNamespace?, hub: ProxyCore) {
        self.workload = workload
        self.namespace = namespace
        self.hub = hub
    }

    /// Starts a TCP connection from the workload's own namespace, so the kernel chooses the workload's address.
    func connect(to address: SocketAddress) throws(SystemError) -> SocketStream {
        try dial(address, options: ConnectOptions())
    }

    /// Starts a connection to the workload's own application from `client`'s address (transparent).
    ///
    /// With `apart` the source port is one that clients do not use by default. A client in clear text has its own
    /// connection to `address` in this namespace, the captured one, and one of this node may have direct ones: were the
    /// ports equal, the kernel would take one of the two connections for the other.
    func connectApplication(
        _ address: SocketAddress, as client: SocketAddress, apart: Bool = false
    ) throws(SystemError) -> SocketStream {
        var options = ConnectOptions()
        if let leg = hub.applicationLeg, !client.ip.isUnspecified, client.ip.isIPv4 == address.ip.isIPv4,
            !client.ip.isLoopback, !workload.addresses.contains(client.ip)
        {
            options.source = RawSocketAddress(SocketAddress(ip: client.ip, port: 0))
            options.reuseAddress = apart
            options.transparent = true
            options.mark = leg.mark
            options.device = ApplicationLeg.device
        }
        guard apart, options.source != nil else { return try dial(address, options: options) }
        for _ in 0..<Self.portAttempts - 1 {
            options.source?.port = UInt16.random(in: Self.portsApart, using: &hub.core.random)
            do throws(SystemError) { return try dial(address, options: options) } catch {
                guard error.isAddressInUse else { throw error }
            }
        }
        options.source?.port = UInt16.random(in: Self.portsApart, using: &hub.core.random)
        return try dial(address, options: options)
    }

    /// Below Linux's default range for clients, 32768–60999.
    private static let portsApart: ClosedRange<UInt16> = 1024...32767
    private static let portAttempts = 16

    private func dial(_ address: SocketAddress, options: ConnectOptions) throws(SystemError) -> SocketStream {
        let target = RawSocketAddress(address)
        var options = options
        if namespace != nil, options.mark == nil { options.mark = hub.filterRules?.mark }
        let descriptor: Int32
        if let namespace {
            descriptor = try namespace.run(returningTo: hub.home) { () throws(SystemError) in
                try Socket.connect(to: target, options: options)
            }
        } else {
            descriptor = try Socket.connect(to: target, options: options)
        }
        return SocketStream(adopting: descriptor, on: hub.core, connecting: true)
    }

    /// New connections use `context`; existing sessions finish what they carry on the old one.
    func install(_ context: TLSContext) {
        let isRotation = tls != nil
        tls = context
        guard isRotation else { return }
        pool.retireAll()
        for server in servers.values { server.drain() }
    }

    /// Sessions of either side that have not ended.
    var sessionCount: Int { servers.count + pool.sessionCount + pool.retiredCount }

    /// Stops listening for one purpose.
    func close(_ purpose: ListenerPurpose) {
        for (_, acceptor) in acceptors.filter({ $0.purpose == purpose }) { acceptor.close() }
        acceptors.removeAll { $0.purpose == purpose }
    }

    /// Stops listening and lets sessions finish.
    func drain() {
        for (_, acceptor) in acceptors { acceptor.close() }
        acceptors.removeAll()
        pool.retireAll()
        for server in servers.values { server.drain() }
    }

    /// Stops at once.
    func close(_ reason: Reason) {
        for (_, acceptor) in acceptors { acceptor.close() }
        acceptors.removeAll()
        dns.close()
        pool.closeAll(reason)
        for server in servers.values { server.fail(reason, "workload removed") }
    }
}
