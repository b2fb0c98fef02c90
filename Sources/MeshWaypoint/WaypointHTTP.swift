internal import MeshHTTP
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import MeshTelemetry

/// The waypoint's HTTP connections on one core: each is the inside of one CONNECT for an HTTP port of a service.
final class WaypointHTTP: HTTPUpstreams {
    private struct Open {
        let connection: HTTPProxyConnection
        let access: WaypointAccess
    }

    private unowned let hub: WaypointCore
    private let local: LocalWorkload
    private var open: [ObjectIdentifier: Open] = [:]
    private var dials: [ObjectIdentifier: UpstreamDial] = [:]

    init(hub: WaypointCore, local: LocalWorkload) {
        self.hub = hub
        self.local = local
        super.init()
    }

    var count: Int { open.count }

    /// Decides about the connection once, then lets HTTP decide about each request.
    func serve(_ request: TunnelRequest, service: ObjectName, address: SocketAddress) {
        let access = WaypointAccess(request, gateway: hub.gateway, service: service, address: address)
        if case .deny(let reason, let policy) = access.verdict(hub.snapshot) {
            return hub.refuse(request, for: local, status: 401, reason, nil, policy: policy)
        }
        request.accept(baggage: nil)
        let facts = HTTPDownstream(
            service: service, port: address.port, caller: request.peer, local: local.workload.identity)
        let connection = HTTPProxyConnection(
            request.stream, facts: facts, on: hub.core, limits: hub.limits, upstreams: self)
        open[ObjectIdentifier(connection)] = Open(connection: connection, access: access)
        connection.start()
    }

    /// Ends connections that policy no longer allows.
    func decideAgain(_ snapshot: MeshSnapshot) {
        for entry in open.values {
            guard case .deny(_, let policy) = entry.access.verdict(snapshot) else { continue }
            // The connection's own line names the policy; a request that is cut has a line of its own.
            var line = AccessLogRecord(time: .now(), event: .connectionComplete, direction: .inbound)
            line.source = entry.access.source
            line.sourceIdentity = entry.access.identity
            line.destination = entry.access.address
            line.service = entry.access.service
            line.destinationIdentity = local.workload.identity
            line.error = Reason.policyChanged.sentence
            line.reason = .policyChanged
            line.policy = policy
            hub.telemetry.append(line)
            entry.connection.abort(.policyChanged)
        }
    }

    func drain() {
        for entry in open.values { entry.connection.drain() }
    }

    func abortAll(_ reason: Reason) {
        for entry in open.values { entry.connection.abort(reason) }
    }

    // MARK: What the engine asks for

    override func snapshot() -> MeshSnapshot { hub.snapshot }

    override func dial(
        service: ObjectName, port: UInt16, for connection: HTTPProxyConnection,
        completion: @escaping (Result<ByteStream, UpstreamFailure>) -> Void
    ) {
        let key = ObjectIdentifier(connection)
        let access = open[key]?.access
        let resolution = hub.snapshot.resolveBackend(
            service, port: port, family: access?.address.ip, using: &hub.core.random)
        dials[key] = local.dial(resolution, client: access?.source) { [self] result in
            dials[key] = nil
            switch result {
            case .success(let connected): completion(.success(connected.stream))
            case .failure(let failure): completion(.failure(UpstreamFailure(failure.reason)))
            }
        }
    }

    override func cancelDial(for connection: HTTPProxyConnection) {
        dials.removeValue(forKey: ObjectIdentifier(connection))?.cancel()
    }

    override func connectionClosed(_ connection: HTTPProxyConnection) {
        cancelDial(for: connection)
        open[ObjectIdentifier(connection)] = nil
    }

    override func requestFinished(_ record: HTTPRequestRecord) {
        let snapshot = hub.snapshot
        let source = record.caller.flatMap { caller in snapshot.workloads.first { $0.identity == caller } }
        let labels = ConnectionLabels(
            reporter: .waypoint, source: Party(source, principal: record.caller),
            destination: Party(nil, principal: nil), service: record.backend ?? record.service,
            requestProtocol: .http, mutualTLS: true)
        hub.telemetry.metrics.requests(labels).completed(
            status: record.status, reason: record.reason, durationNanoseconds: record.durationNanoseconds)
        var line = AccessLogRecord(time: .now(), event: .requestComplete, direction: .inbound)
        line.sourceWorkload = source?.name
        line.sourceIdentity = record.caller
        line.service = record.backend ?? record.service
        line.destinationIdentity = local.workload.identity
        line.bytesFromClient = record.bytesReceived
        line.bytesToClient = record.bytesSent
        line.durationNanoseconds = record.durationNanoseconds
        line.reason = record.reason
        line.request = AccessLogRecord.Request(
            method: record.method, path: record.path, status: record.status, route: record.route)
        hub.telemetry.append(line)
    }
}
