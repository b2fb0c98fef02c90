internal import Foundation
internal import Logging
internal import MeshAdmin
internal import MeshDiscovery
internal import MeshIdentity
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import MeshTLS
internal import MeshTelemetry
internal import ServiceLifecycle
internal import Synchronization
internal import UnixSignals

/// A waypoint proxy, put together: configuration, certificate, data plane with HTTP, admin.
public struct WaypointDaemon: Sendable {
    private let options: WaypointOptions

    var gateway: ObjectName { options.gateway }

    public init(_ options: WaypointOptions) {
        self.options = options
    }

    /// Runs until SIGTERM or SIGINT, then drains.
    public func run() async throws {
        let levels = LogLevels(.info)
        let format = options.logFormat
        LoggingSystem.bootstrap { MeshLogHandler(scope: $0, levels: levels, format: format) }
        let logger = Logger(label: "waypoint")
        _ = try? OpenFiles.raiseLimit()

        let source = try attempt { try FileSource(path: options.configuration) }
        let state = source.state
        for warning in state.warnings { logger.warning("\(warning.description)") }
        let own = try ownWorkload(state.snapshot)

        let log = AccessLogWriter(format: format, cores: options.cores)
        log.start()
        defer { log.stop() }
        let gateway = options.gateway
        let plane = try attempt {
            try DataPlane(cores: options.cores) { core in
                WaypointCore(
                    gateway: gateway, core: core, snapshot: state.snapshot,
                    telemetry: CoreTelemetry(
                        metrics: CoreMetrics(core: core.index), log: log.queues[core.index], isWaypoint: true))
            }
        }
        defer { plane.stop() }
        let readiness = WaypointReadiness()
        let signer = IdentityClient(path: try identitySocket())
        let svids = SVIDStore(
            signer: signer,
            changed: { svid in
                do {
                    let context = try TLSContext(svid: svid)
                    plane.post { $0.install(context, for: svid.identity) }
                    readiness.hasCertificate()
                } catch {
                    logger.error("certificate of \(svid.identity) is not usable: \(error)")
                }
            })
        try listen(own, on: plane)
        let registry = MetricsRegistry()
        let admin = AdminServer(
            ports: .init(admin: options.adminPort, metrics: options.metricsPort, readiness: options.readinessPort),
            sources: adminSources(source, plane, svids, registry, log, levels, readiness),
            logger: Logger(label: "admin"))
        let group = ServiceGroup(
            configuration: .init(
                services: [
                    .init(service: Running(admin.run)),
                    .init(service: Running(svids.run)),
                    .init(
                        service: Running { await obtain(own.identity, svids, logger, readiness) },
                        successTerminationBehavior: .ignore),
                    .init(service: Running { try await follow(source, plane, own, logger) }),
                    .init(
                        service: Draining(atMost: { source.drainLimit }, logger: logger) {
                            await plane.drain(atMost: $0)
                        }),
                ],
                gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        do {
            try await group.run()
        } catch let error as AdminError {
            throw WaypointError(error.description)
        }
    }

    /// The first certificate; `SVIDStore.run` renews it.
    private func obtain(
        _ identity: SPIFFEID, _ svids: SVIDStore, _ logger: Logger, _ readiness: WaypointReadiness
    ) async {
        while !Task.isCancelled {
            do throws(IdentityError) {
                _ = try await svids.svid(for: identity)
                return
            } catch {
                if readiness.hasNoCertificate(error.description) {
                    logger.error("no certificate yet: \(error.description)")
                }
            }
            try? await Task.sleep(for: .seconds(1))
        }
    }

    private func follow(_ source: FileSource, _ plane: DataPlane, _ own: Workload, _ logger: Logger) async throws {
        for await update in try source.updates() {
            if let failure = update.failure {
                logger.error("configuration refused, the last good one keeps serving: \(failure.description)")
                continue
            }
            let snapshot = update.state.snapshot
            logger.info(
                "configuration \(snapshot.generation): \(snapshot.routes.count) routes, \(snapshot.services.count) services"
            )
            plane.post { $0.install(snapshot) }
            if snapshot.workload(named: own.name)?.identity != own.identity {
                logger.warning("the configuration no longer describes this waypoint as \(own.identity): restart it")
            }
        }
    }

    /// Which of the Gateway's workloads this process is: the one whose address this machine has.
    private func ownWorkload(_ snapshot: MeshSnapshot) throws -> Workload {
        let candidates = snapshot.workloads.filter { $0.waypointOf == options.gateway }
        guard !candidates.isEmpty else {
            throw WaypointError(
                "no Workload is a waypoint of Gateway \(options.gateway): label one in namespace "
                    + "\(options.gateway.namespace) with \(Labels.gatewayName): \(options.gateway.name)")
        }
        for workload in candidates where workload.addresses.contains(where: Self.isLocal) { return workload }
        let addresses = candidates.flatMap(\.addresses).map(\.description).joined(separator: ", ")
        throw WaypointError(
            "none of the addresses of Gateway \(options.gateway)'s waypoints (\(addresses)) is an address of this "
                + "network namespace: start the waypoint where its Workload lives")
    }

    /// An address is ours when a socket can be bound to it.
    private static func isLocal(_ ip: IPAddress) -> Bool {
        guard let socket = try? Socket.listen(RawSocketAddress(SocketAddress(ip: ip, port: 0))) else { return false }
        Socket.close(socket)
        return true
    }

    private func listen(_ own: Workload, on plane: DataPlane) throws {
        var listenOptions = ListenOptions()
        listenOptions.reusePort = true
        for index in 0..<plane.coreCount {
            let listener: Int32
            do throws(SystemError) {
                listener = try Socket.listen(
                    RawSocketAddress(high: 0, low: 0, isIPv4: false, port: ProxyPort.tunnel), options: listenOptions)
            } catch {
                throw WaypointError(
                    "cannot listen on port \(ProxyPort.tunnel): \(error): another waypoint or proxy has it")
            }
            plane.post(to: index) { hub in
                // The listener is new and ours; only a core without room for one more socket could refuse it.
                do { try hub.add(own, namespace: nil, tls: nil, outbound: nil, inbound: nil, tunnel: listener) } catch {
                    fatalError("listener on core \(hub.core.index): \(error)")
                }
            }
        }
    }

    private func identitySocket() throws -> String {
        if let path = options.identitySocket { return path }
        let folder = "/run/culvert"
        let found = ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).sorted()
            .map { "\(folder)/\($0)/identity.sock" }.filter { FileManager.default.fileExists(atPath: $0) }
        guard found.count == 1, let path = found.first else {
            throw WaypointError(
                found.isEmpty
                    ? "no node proxy's identity socket below \(folder): is culvert-node running? Else give --identity-socket"
                    : "several identity sockets (\(found.joined(separator: ", "))): say which with --identity-socket")
        }
        return path
    }

    /// Failures before the daemon runs become one kind, for the one line that the main prints.
    private func attempt<Value>(_ body: () throws -> Value) throws -> Value {
        do { return try body() } catch { throw WaypointError("\(error)") }
    }
}
