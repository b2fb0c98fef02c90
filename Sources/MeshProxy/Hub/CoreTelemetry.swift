public import MeshModel
public import MeshTelemetry

/// Turns a core's connection records into counters and access-log lines.
public final class CoreTelemetry {
    public let metrics: CoreMetrics
    private let log: AccessLogQueue
    /// Istio's `reporter` for a connection that came in or went out through this proxy.
    private let reporters: (inbound: Reporter, outbound: Reporter)

    /// `log` is the queue of this core. A waypoint reports as `waypoint` both ways.
    public init(metrics: CoreMetrics, log: AccessLogQueue, isWaypoint: Bool) {
        self.metrics = metrics
        self.log = log
        reporters = isWaypoint ? (.waypoint, .waypoint) : (.destination, .source)
    }

    func opened(_ record: ConnectionRecord) {
        for labels in allLabels(record) { metrics.connections(labels).opened() }
    }

    func closed(_ record: ConnectionRecord, wasOpen: Bool, now: UInt64) {
        log.append(count(record, wasOpen: wasOpen, now: now))
    }

    /// Its opening and its end are counted at once: the kernel reports no more than the end.
    func closed(_ connection: DirectConnection) {
        if connection.isEstablished { opened(connection.record) }
        var line = count(connection.record, wasOpen: connection.isEstablished, now: connection.endedAt)
        line.kernel = .init(
            roundTripMicroseconds: connection.roundTripMicroseconds, retransmits: connection.retransmits)
        log.append(line)
    }

    private func count(_ record: ConnectionRecord, wasOpen: Bool, now: UInt64) -> AccessLogRecord {
        for labels in allLabels(record) {
            let series = metrics.connections(labels)
            // A refused connection was opened too, as far as its client could see.
            if !wasOpen { series.opened() }
            series.transferred(
                fromClient: Int(record.bytesFromDownstream), toClient: Int(record.bytesFromUpstream))
            series.closed(record.reason)
        }
        var line = AccessLogRecord(
            time: .now(), event: wasOpen || record.reason == .none ? .connectionComplete : .connectionFailed,
            direction: record.direction == .inbound ? .inbound : .outbound)
        line.source = record.source
        line.sourceWorkload = record.sourceWorkload?.name
        line.destination = record.destination
        line.authority = record.tunnelAuthority.map(\.description)
        line.service = record.destinationService?.name
        line.destinationWorkload = record.destinationWorkload?.name
        if record.isMutualTLS || record.isSameNode {
            line.sourceIdentity = record.sourceIdentity
            line.destinationIdentity = record.destinationIdentity
        }
        line.bytesFromClient = record.bytesFromDownstream
        line.bytesToClient = record.bytesFromUpstream
        line.durationNanoseconds = now - record.startedAt
        line.error = record.error ?? (record.reason == .none ? nil : record.reason.sentence)
        line.reason = record.reason
        line.policy = record.policy
        return line
    }

    /// One line of a waypoint's access log.
    public func append(_ line: AccessLogRecord) { log.append(line) }

    /// The series a connection counts in. Between two workloads of this proxy it speaks for both ends.
    private func allLabels(_ record: ConnectionRecord) -> [ConnectionLabels] {
        let reporter = record.direction == .inbound ? reporters.inbound : reporters.outbound
        let own = labels(record, reporter)
        return record.isSameNode ? [own, labels(record, .destination)] : [own]
    }

    private func labels(_ record: ConnectionRecord, _ reporter: Reporter) -> ConnectionLabels {
        ConnectionLabels(
            reporter: reporter, source: Party(record.sourceWorkload, principal: record.sourceIdentity),
            destination: Party(record.destinationWorkload, principal: record.destinationWorkload?.identity),
            service: record.destinationService?.name, mutualTLS: record.isMutualTLS)
    }
}

extension Reason {
    /// What the access log's `error` says when there is nothing more particular.
    public var sentence: String {
        switch self {
        case .policyDeny: "connection closed due to policy rejection: explicitly denied"
        case .policyNoAllow: "connection closed due to policy rejection: allow policies exist, but none allowed"
        case .mutualTLSRequired: "connection closed due to policy rejection: mutual TLS is required"
        case .policyChanged: "connection closed due to policy change"
        case .noHealthyUpstream: "no healthy upstream"
        case .unknownPort: "the service has no such port"
        case .waypointUnavailable: "no healthy waypoint"
        case .recursiveCall: "attempted recursive call to ourselves"
        case .reset: "connection reset by one of its ends"
        case .drain: "connection closed due to connection drain"
        case .workloadGone: "the workload is gone"
        default: rawValue
        }
    }
}
