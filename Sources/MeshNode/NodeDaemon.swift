internal import Foundation
internal import Logging
internal import MeshAdmin
internal import MeshDiscovery
internal import MeshIdentity
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import MeshTLS
internal import MeshTelemetry
internal import ServiceLifecycle
internal import UnixSignals

/// The node proxy, put together: configuration, certificates, capture, data plane, admin.
public struct NodeDaemon: Sendable {
    private let options: NodeOptions

    public init(_ options: NodeOptions) {
        self.options = options
    }

    /// Runs until SIGTERM or SIGINT, then drains. Capture stays in place afterwards (decision 2).
    public func run() async throws {
        let levels = LogLevels(.info)
        let format = options.logFormat
        LoggingSystem.bootstrap { MeshLogHandler(scope: $0, levels: levels, format: format) }
        let logger = Logger(label: "node")
        _ = try? OpenFiles.raiseLimit()

        let source = try attempt { try FileSource(path: options.configuration) }
        let state = source.state
        for warning in state.warnings { logger.warning("\(warning.description)") }
        // First, so that "run as root" is what a plain user reads and not which file they may not write.
        try attempt { try NodeCapture.requireCapabilities(for: options.captureLevel) }
        let authority = try attempt { try loadAuthority(state) }
        // Not before everything else was found good: the running daemon stops writing kernel state.
        let inheritance = options.takesOver ? try await requestHandover(logger) : nil
        let capture = try attempt {
            try NodeCapture(
                options: captureOptions, level: inheritance?.level ?? options.captureLevel,
                takingOver: inheritance?.captureListeners)
        }
        report(capture, logger)

        let log = AccessLogWriter(format: format, cores: options.cores)
        log.start()
        defer { log.stop() }
        let nodeName = options.nodeName
        let plane = try attempt {
            try DataPlane(cores: options.cores) { core in
                ProxyCore(
                    core: core, nodeName: nodeName, snapshot: state.snapshot,
                    telemetry: CoreTelemetry(
                        metrics: CoreMetrics(core: core.index), log: log.queues[core.index], isWaypoint: false),
                    applicationLeg: ApplicationLeg(mark: CaptureConstants.upstreamMark),
                    filterRules: capture.proxyMark.map(FilterRules.init))
            }
        }
        defer { plane.stop() }
        let signer = EmbeddedSigner(authority)
        let svids = SVIDStore(signer: signer, changed: { svid in plane.install(svid, logger: logger) })
        let obstacle = KernelCapture.directObstacle()
        if let obstacle { logger.warning("same-node connections go through the proxy: \(obstacle)") }
        let makeKernel: @Sendable (NodeCapture) throws -> NodeKernel = {
            try NodeKernel($0, nodeName: nodeName, plane: plane, hasDirect: obstacle == nil)
        }
        let kernel = try attempt { try makeKernel(capture) }
        let workloads = WorkloadManager(
            nodeName: nodeName, plane: plane, kernel: kernel, svids: svids, inheritance: inheritance,
            logger: Logger(label: "workloads"))
        let place = try attempt {
            try FileManager.default.createDirectory(
                atPath: "\(options.runDirectory)/\(nodeName)", withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o711])
            return try NodePlace(
                captureOptions, isTakingOver: inheritance != nil, takeoverLimit: options.takeoverLimit, kernel: kernel,
                workloads: workloads, plane: plane, logger: logger, makeKernel: makeKernel
            ) { [options] in
                try IdentityServer(path: options.identitySocket, signer: signer) { inode in
                    source.state.snapshot.identityOfWaypoint(inNamespace: inode, node: nodeName)
                }
            }
        }
        defer { place.stop() }
        let registry = MetricsRegistry()
        let admin = AdminServer(
            ports: .init(admin: options.adminPort, metrics: options.metricsPort, readiness: options.readinessPort),
            sources: NodeAdmin(
                nodeName: nodeName, source: source, plane: plane, workloads: workloads, svids: svids,
                kernel: { place.kernel }, placeObstacle: { place.obstacle }, registry: registry, log: log,
                levels: levels,
                explain: NodeExplain(
                    nodeName: nodeName, source: source, workloads: workloads, capture: { place.kernel.capture },
                    directObstacle: obstacle)
            ).sources, logger: Logger(label: "admin"))
        let endpoints = Pausable { try await place.serve(admin) }
        place.own(endpoints)
        let shutdown = AsyncStream.makeStream(of: Void.self)
        let handover = HandoverServer(
            path: options.handoverSocket, level: capture.level, limit: options.takeoverLimit * 2,
            owner: .init(
                release: place.release, reportSilence: place.reportSilence, takeBack: place.takeBack,
                isAlone: place.isAlone,
                leave: {
                    await place.leave()
                    shutdown.continuation.yield()
                }),
            logger: Logger(label: "handover"))
        let group = ServiceGroup(
            configuration: .init(
                services: [
                    .init(service: endpoints),
                    .init(service: Running(svids.run)),
                    .init(service: Running { await workloads.follow(source) }),
                    // What it accepted beside the running daemon is finished also where it gives up.
                    .init(
                        service: Running {
                            guard let inheritance else { return try await handover.run() }
                            try await place.settle(inheritance)
                            async let end: Void = place.outlive(inheritance)
                            try await handover.run()
                            try await end
                        },
                        failureTerminationBehavior: .gracefullyShutdownGroup),
                    .init(
                        service: Running { for await _ in shutdown.stream { break } },
                        successTerminationBehavior: .gracefullyShutdownGroup),
                    .init(
                        service: Running {
                            await NodeResolvers(
                                path: "/etc/resolv.conf", plane: plane, logger: Logger(label: "dns")
                            ).follow()
                        }),
                    .init(
                        service: Draining(atMost: { source.drainLimit }, logger: logger) {
                            await plane.drain(atMost: $0)
                        }),
                ],
                gracefulShutdownSignals: [.sigterm, .sigint], logger: logger))
        do {
            try await group.run()
        } catch let error as AdminError {
            throw NodeError(error.description)
        } catch let error as IdentityError {
            throw NodeError(error.description)
        }
        if let successor = handover.successor {
            return logger.info("stopped; process \(successor) serves this node")
        }
        handover.removeSocket()
        logger.info("stopped; capture stays in place: workloads get refusals until a node proxy runs again")
    }

    private func report(_ capture: NodeCapture, _ logger: Logger) {
        let because = capture.explanation.isEmpty ? "" : ": \(capture.explanation)"
        logger.log(level: because.isEmpty ? .info : .warning, "capture level \(capture.level)\(because)")
        if let obstacle = capture.dnsObstacle {
            logger.warning(
                "DNS is captured by TCP alone, and questions by UDP go where they are meant to: \(obstacle)")
        }
        if capture.programs == nil, options.kubeletCgroup != nil {
            logger.warning(
                "--kubelet-cgroup has no effect at capture level \(capture.level): STRICT workloads refuse the kubelet's probes"
            )
        }
    }

    /// Asks a running daemon of the node to hand over; nil when none runs.
    private func requestHandover(_ logger: Logger) async throws -> Inheritance? {
        do {
            let inheritance = try await Inheritance.request(options.handoverSocket, level: options.captureLevel)
            if let inheritance {
                logger.info("taking over from process \(inheritance.process)")
            } else {
                logger.info("no node proxy waits at \(options.handoverSocket): starting as usual")
            }
            return inheritance
        } catch {
            throw NodeError("hand-over (\(options.handoverSocket)): \(error)")
        }
    }

    private var captureOptions: CaptureOptions {
        CaptureOptions(
            nodeName: options.nodeName, cgroupPath: options.cgroup, kubeletCgroup: options.kubeletCgroup,
            bpffsPath: options.bpffs, runtimeDirectory: options.runDirectory)
    }

    private func loadAuthority(_ state: ConfigurationState) throws -> EmbeddedAuthority {
        let settings = state.snapshot.settings
        let files = settings.authority.map { files in
            AuthorityFiles(
                certificate: absolute(files.certificate, in: state.folder), key: absolute(files.key, in: state.folder))
        }
        if files == nil {
            try FileManager.default.createDirectory(
                atPath: options.stateDirectory, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        }
        let fallback = AuthorityFiles(
            certificate: "\(options.stateDirectory)/ca.pem", key: "\(options.stateDirectory)/ca.key")
        return try (files ?? fallback).loadOrCreate(
            trustDomain: settings.trustDomain, now: Int64(Date().timeIntervalSince1970))
    }

    private func absolute(_ path: String, in folder: String) -> String {
        path.hasPrefix("/") ? path : "\(folder)/\(path)"
    }

    /// Failures before the daemon runs become one kind, for the one line that the main prints.
    private func attempt<Value>(_ body: () throws -> Value) throws -> Value {
        do { return try body() } catch { throw NodeError("\(error)") }
    }
}

extension DataPlane {
    /// Gives every core the TLS settings of a new SVID.
    func install(_ svid: SVID, logger: Logger) {
        do {
            let context = try TLSContext(svid: svid)
            post { $0.install(context, for: svid.identity) }
        } catch {
            logger.error("certificate of \(svid.identity) is not usable: \(error)")
        }
    }
}

extension MeshSnapshot {
    /// Who a process in this network namespace is, if it is a waypoint of `node`: others have the node proxy speak
    /// for them and need no certificate.
    func identityOfWaypoint(inNamespace inode: UInt64, node: String) -> SPIFFEID? {
        workloads.first { workload in
            guard workload.node == node, workload.waypointOf != nil, let path = workload.netns else { return false }
            return (try? NetworkNamespace(path: path).inode) == inode
        }?.identity
    }
}
