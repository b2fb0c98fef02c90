internal import MeshAdmin
internal import MeshDiscovery
internal import MeshIdentity
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshTLS
internal import MeshTelemetry

/// What the admin, metrics and readiness endpoints of the node proxy show.
struct NodeAdmin {
    let nodeName: String
    let source: FileSource
    let plane: DataPlane
    let workloads: WorkloadManager
    let svids: SVIDStore
    /// Another one after a hand-over that failed.
    let kernel: @Sendable () -> NodeKernel
    /// Why the node is another daemon's, when it should not be.
    let placeObstacle: @Sendable () -> String?
    let registry: MetricsRegistry
    let log: AccessLogWriter
    let levels: LogLevels
    let explain: NodeExplain

    var sources: AdminSources {
        let (source, plane, workloads, svids, levels) = (source, plane, workloads, svids, levels)
        let (kernel, placeObstacle, registry, log, explain) = (kernel, placeObstacle, registry, log, explain)
        let capture = kernel().capture
        let obstacle = capture.programs.map(\.acceleration.obstacle) ?? "capture level \(capture.level.rawValue)"
        let acceleration = obstacle.map { "unavailable: \($0)" } ?? "available"
        return AdminSources(
            daemon: DaemonFacts(
                kind: .node, name: nodeName, version: NodeOptions.version, cores: plane.coreCount,
                captureLevel: capture.level.rawValue, acceleration: acceleration),
            snapshot: { source.state.snapshot },
            connections: { await plane.connections() + (kernel().direct?.openConnections ?? []) },
            certificates: { svids.adminCertificates() },
            metrics: {
                await plane.collectMetrics(into: registry)
                let status = workloads.currentStatus
                registry.set(
                    Int64(status.live), of: MetricKey("workload_manager_active_proxy_count"),
                    help: "Workloads that are served")
                registry.set(
                    Int64(status.problems.count), of: MetricKey("workload_manager_pending_proxy_count"),
                    help: "Workloads that could not be started yet")
                registry.set(
                    status.configurationProblem == nil ? 1 : 0, of: MetricKey("culvert_configuration_current"),
                    help: "1 while the newest configuration is the one that is served")
                registry.setTotal(
                    log.dropped, of: MetricKey("culvert_access_log_dropped_total"),
                    help: "Access log lines dropped because the log's reader was too slow")
                let kernel = kernel()
                registry.set(
                    1, of: MetricKey("culvert_capture_level", [.init("level", kernel.capture.level.rawValue)]),
                    help: "1 for the level capture works at")
                if let statistics = kernel.capture.statistics() {
                    for event in CaptureEvent.allCases {
                        registry.setTotal(
                            statistics[event],
                            of: MetricKey("culvert_capture_events_total", [.init("event", event.word)]),
                            help: "What the capture programs did")
                    }
                }
                if let programs = kernel.capture.programs {
                    registry.set(
                        Int64(programs.directFlowCount), of: MetricKey("culvert_direct_connections"),
                        help: "Same-node connections open now that go without the proxy")
                    registry.set(
                        programs.acceleration.isFit ? 1 : 0, of: MetricKey("culvert_acceleration_available"),
                        help: "1 where the kernel is fit for accelerated connections (acceleration: sockmap)")
                }
                if let direct = kernel.direct {
                    registry.set(
                        Int64(clamping: direct.configuration), of: MetricKey("culvert_direct_configuration"),
                        help: "The configuration whose rules for same-node connections the kernel has")
                }
                registry.setTotal(
                    kernel.direct?.acceleratedBytes ?? 0, of: MetricKey("culvert_accelerated_bytes_total"),
                    help: "Bytes of closed same-node connections that bypassed TCP")
                return registry.render(mesh: source.state.snapshot)
            },
            notReady: { (placeObstacle().map { [$0] } ?? []) + workloads.notReady },
            logLevel: { levels.description },
            setLogLevel: { levels.set($0) }, capture: { explain.answer($0, to: $1) })
    }
}

extension SVIDStore {
    func adminCertificates() -> [AdminCertificate] {
        states().sorted { $0.key.description < $1.key.description }.map { identity, state in
            let svid = current(identity)
            let text =
                switch state {
                case .initializing: "Initializing"
                case .available: "Available"
                case .unavailable(let why): "Unavailable: \(why)"
                }
            return AdminCertificate(
                identity: identity, state: text,
                chainPEM: svid.map { [$0.certificate.pem] + $0.intermediates.map(\.pem) } ?? [],
                rootsPEM: svid?.trustBundle.map(\.pem) ?? [], serialNumber: svid?.certificate.serial ?? "",
                notBefore: svid?.notBefore ?? 0, notAfter: svid?.notAfter ?? 0)
        }
    }
}
