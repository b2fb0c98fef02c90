public import MeshModel
public import MeshRuntime
public import MeshTLS
internal import MeshWire

/// Everything one core of the data plane owns: the current snapshot, the local workloads with their listeners and
/// pools, and every open connection. Lives on its core and is reached from elsewhere only by `CoreHandle.post`.
open class ProxyCore {
    public let core: Core
    public let nodeName: String
    public var limits: Limits { snapshot.settings.limits }
    /// Decisions are made on this; replaced as a whole.
    public private(set) var snapshot: MeshSnapshot
    public private(set) var workloads: [ObjectName: LocalWorkload] = [:]
    public let connections = ConnectionList()
    public let telemetry: CoreTelemetry
    /// nil where nothing captures: applications are then reached as anybody reaches them.
    let applicationLeg: ApplicationLeg?
    /// Set where rules of the packet filter bring captured connections, and translate their destinations on the way.
    let filterRules: FilterRules?
    public private(set) var isDraining = false
    /// Small blocks of the HTTP/2 codec, shared by all sessions of the core.
    let http2Memory = HTTP2Memory()
    /// Where the core's thread comes back to from a workload's namespace; kept, since looking it up costs system calls.
    private(set) lazy var home = try? NetworkNamespace.current()
    /// The node's own DNS resolvers, for questions that were put to the proxy itself.
    public var nodeResolvers: [SocketAddress] = []
    private var handshakes = 0

    public init(
        core: Core, nodeName: String, snapshot: MeshSnapshot, telemetry: CoreTelemetry, applicationLeg: ApplicationLeg?,
        filterRules: FilterRules? = nil
    ) {
        self.core = core
        self.nodeName = nodeName
        self.snapshot = snapshot
        self.telemetry = telemetry
        self.applicationLeg = applicationLeg
        self.filterRules = filterRules
    }

    // MARK: Changes from the control thread

    /// New decisions are made on `snapshot`; live connections are decided again and closed when no longer allowed.
    open func install(_ snapshot: MeshSnapshot) {
        self.snapshot = snapshot
        for local in workloads.values {
            if let current = snapshot.workload(named: local.workload.name) { local.workload = current }
        }
        connections.forEach { connection in
            if let (reason, policy) = connection.decideAgain(snapshot) {
                connection.terminate(reason, policy: policy)
            }
        }
    }

    /// Makes a workload known, which others of the core can reach then.
    @discardableResult
    public func add(_ workload: Workload, namespace: NetworkNamespace?, tls: TLSContext?) -> LocalWorkload {
        // A workload that changed is served anew; what ran as it was before ends.
        remove(workload.name)
        let local = LocalWorkload(workload, namespace: namespace, hub: self)
        local.tls = tls
        workloads[workload.name] = local
        return local
    }

    /// Begins to serve a workload on listeners made in its namespace. Each listener is one of a reuseport group.
    @discardableResult
    public func add(
        _ workload: Workload, namespace: NetworkNamespace?, tls: TLSContext?,
        outbound: Int32?, inbound: Int32?, tunnel: Int32?
    ) throws(SystemError) -> LocalWorkload {
        let local = add(workload, namespace: namespace, tls: tls)
        if let outbound { try listen(on: outbound, as: .outbound, for: local) }
        if let inbound { try listen(on: inbound, as: .inbound, for: local) }
        if let tunnel { try listen(on: tunnel, as: .tunnel, for: local) }
        return local
    }

    /// One listener more for a workload that is served. The descriptor is the core's from here on.
    public func listen(
        on listener: Int32, as purpose: ListenerPurpose, for local: LocalWorkload
    ) throws(SystemError) {
        switch purpose {
        case .outbound:
            try accept(listener, purpose, local) { hub, stream in
                if hub.takeDNS(stream, local) { return }
                OutboundConnection(hub: hub, source: local, downstream: stream).start()
            }
        case .inbound:
            try accept(listener, purpose, local) { hub, stream in
                PlaintextConnection(hub: hub, target: local, downstream: stream).start()
            }
        case .tunnel:
            try accept(listener, purpose, local) { hub, stream in
                hub.acceptTunnel(
                    stream, from: SocketAddress(stream.remoteAddress), to: SocketAddress(stream.localAddress), local)
            }
        case .dnsDatagrams: try answerDNS(on: listener, for: local)
        case .dnsStreams:
            try accept(listener, purpose, local) { hub, stream in hub.serveDNS(stream, local, server: nil) }
        }
    }

    /// All of them or none; those that are not taken are closed.
    func listen(
        on listeners: [(purpose: ListenerPurpose, socket: Int32)], for name: ObjectName
    ) -> Result<Void, SystemError> {
        var left = listeners[...]
        // Removed again meanwhile: there is nothing to accept for.
        guard let local = workloads[name] else {
            for (_, socket) in left { Socket.close(socket) }
            return .success(())
        }
        let known = local.acceptors.count
        do throws(SystemError) {
            // One that fails is closed by who took it.
            while let (purpose, socket) = left.popFirst() { try listen(on: socket, as: purpose, for: local) }
            return .success(())
        } catch {
            for (_, socket) in left { Socket.close(socket) }
            for (_, acceptor) in local.acceptors[known...] { acceptor.close() }
            local.acceptors.removeSubrange(known...)
            return .failure(error)
        }
    }

    private func accept(
        _ listener: Int32, _ purpose: ListenerPurpose, _ local: LocalWorkload,
        body: @escaping (ProxyCore, SocketStream) -> Void
    ) throws(SystemError) {
        let acceptor = try Acceptor(listener: listener, on: core, isTranslated: filterRules != nil) {
            [unowned self] stream in body(self, stream)
        }
        local.acceptors.append((purpose, acceptor))
    }

    /// The workload is gone: its connections and sessions end now.
    public func remove(_ name: ObjectName) {
        guard let local = workloads.removeValue(forKey: name) else { return }
        local.close(.workloadGone)
        connections.forEach { connection in
            if connection.record.belongs(to: name) { connection.terminate(.workloadGone) }
        }
    }

    public func install(_ context: TLSContext, for identity: SPIFFEID) {
        for local in workloads.values where local.workload.identity == identity { local.install(context) }
    }

    /// Takes nothing new and lets what is open finish; `drained` tells when.
    open func drain() {
        isDraining = true
        for local in workloads.values { local.drain() }
    }

    /// Ends everything that is left.
    open func closeAll(_ reason: Reason) {
        connections.forEach { $0.terminate(reason) }
        for local in workloads.values { local.close(reason) }
    }

    /// Tunnel sessions that have not ended, of both sides.
    var openSessions: Int { workloads.values.reduce(0) { $0 + $1.sessionCount } }

    /// Connections open now, of every kind.
    open var openConnections: Int { connections.count }

    // MARK: Tunnels

    func acceptTunnel(
        _ stream: ByteStream, from remote: SocketAddress, to address: SocketAddress, _ local: LocalWorkload
    ) {
        guard let context = local.tls else {
            recordFailure(
                from: remote, to: address, local, .identityUnavailable, "the workload has no certificate yet",
                since: core.now)
            return stream.reset()
        }
        guard handshakes < limits.handshakesInFlightPerCore else {
            recordFailure(
                from: remote, to: address, local, .limitReached, "too many TLS handshakes in flight", since: core.now)
            return stream.reset()
        }
        handshakes += 1
        let server = TunnelServer(
            core: core, transport: stream, from: remote, to: address, context: context, limits: limits,
            memory: http2Memory,
            opened: { [unowned self] _ in handshakes -= 1 },
            handler: { [unowned self, weak local] request in
                guard let local else { return request.refuse(status: 503) }
                handle(request, for: local)
            },
            malformed: { [unowned self, weak local] server, reason, detail in
                if let local { tunnelFailed(server, local, reason, detail) }
            },
            ended: { [unowned self, weak local] server, reason, detail in
                if server.peer == nil {
                    handshakes -= 1
                    if let local { tunnelFailed(server, local, reason, detail) }
                } else if reason == .protocolError || !server.sawRequest && reason != .none, let local {
                    // Later ends show in the records of the streams, but abuse has a name of its own.
                    tunnelFailed(server, local, reason, detail)
                }
                local?.servers[ObjectIdentifier(server)] = nil
            })
        local.servers[ObjectIdentifier(server)] = server
        server.start()
    }

    private func tunnelFailed(_ server: TunnelServer, _ local: LocalWorkload, _ reason: Reason, _ detail: String) {
        recordFailure(
            from: server.remoteAddress, to: server.localAddress, local, reason, detail, since: server.acceptedAt,
            peer: server.peer)
    }

    private func recordFailure(
        from source: SocketAddress, to destination: SocketAddress, _ local: LocalWorkload, _ reason: Reason,
        _ detail: String, since start: UInt64, peer: SPIFFEID? = nil
    ) {
        var record = ConnectionRecord(
            direction: .inbound, source: source, destination: destination, startedAt: start)
        record.destinationWorkload = local.workload
        record.sourceWorkload = snapshot.workload(at: source.ip)
        record.sourceIdentity = peer
        record.isMutualTLS = peer != nil
        record.reason = reason
        record.error = detail
        closed(record, wasOpen: false)
    }

    /// A verified peer asks for a connection behind `local`. The node's answer: only to this workload's own address.
    open func handle(_ request: TunnelRequest, for local: LocalWorkload) {
        let ours = request.session.localAddress
        guard case .address(let authority) = request.connect.authority, authority.ip == ours.ip else {
            return refuse(
                request, for: local, status: 400, .badAuthority,
                "ip mismatch: \(request.connect.authority) != \(ours.ip)")
        }
        TunnelConnection(hub: self, target: local, request: request, address: authority).start()
    }

    /// Answers with `status` and records why.
    public func refuse(
        _ request: TunnelRequest, for local: LocalWorkload, status: Int, _ reason: Reason, _ detail: String?,
        policy: ObjectName? = nil
    ) {
        request.refuse(status: status)
        var record = request.record(for: local, on: self)
        record.reason = reason
        record.error = detail
        record.policy = policy
        closed(record, wasOpen: false)
    }

    // MARK: Records

    /// Takes the records of connections that the kernel carried.
    public func closedDirect(_ connections: [DirectConnection]) { telemetry.closed(connections, in: snapshot) }

    func opened(_ record: ConnectionRecord) { telemetry.opened(record) }

    func closed(_ record: ConnectionRecord, wasOpen: Bool) {
        telemetry.closed(record, wasOpen: wasOpen, now: core.now)
    }
}
