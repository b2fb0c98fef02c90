internal import MeshAdmin
internal import MeshDiscovery
internal import MeshIdentity
internal import MeshModel
internal import MeshProxy
internal import MeshTLS
internal import MeshTelemetry
internal import Synchronization

/// Whether the waypoint can serve: it has a certificate.
final class WaypointReadiness: Sendable {
    private let problem = Mutex<String?>("no certificate yet")

    func hasCertificate() { problem.withLock { $0 = nil } }

    /// True when this is another problem than before.
    func hasNoCertificate(_ why: String) -> Bool {
        problem.withLock { problem in
            let text = "no certificate yet: \(why)"
            defer { problem = text }
            return problem != text
        }
    }

    var notReady: [String] { problem.withLock { $0.map { [$0] } ?? [] } }
}

extension WaypointDaemon {
    func adminSources(
        _ source: FileSource, _ plane: DataPlane, _ svids: SVIDStore, _ registry: MetricsRegistry,
        _ log: AccessLogWriter, _ levels: LogLevels, _ readiness: WaypointReadiness
    ) -> AdminSources {
        AdminSources(
            daemon: DaemonFacts(
                kind: .waypoint, name: "\(gateway)", version: WaypointOptions.version, cores: plane.coreCount),
            snapshot: { source.state.snapshot },
            connections: { await plane.connections() },
            certificates: {
                svids.states().keys.compactMap { svids.current($0) }.map { svid in
                    AdminCertificate(
                        identity: svid.identity, state: "Available", chainPEM: [svid.certificate.pem],
                        rootsPEM: svid.trustBundle.map(\.pem), serialNumber: svid.certificate.serial,
                        notBefore: svid.notBefore, notAfter: svid.notAfter)
                }
            },
            metrics: {
                await plane.collectMetrics(into: registry)
                registry.setTotal(
                    log.dropped, of: MetricKey("culvert_access_log_dropped_total"),
                    help: "Access log lines dropped because the log's reader was too slow")
                return registry.render(mesh: source.state.snapshot)
            },
            notReady: { readiness.notReady }, logLevel: { levels.description }, setLogLevel: { levels.set($0) })
    }
}
