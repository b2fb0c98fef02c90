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
        for labels in allLabels(record) {
            let series = metrics.connections(labels)
            // A refused connection was opened too, as far as its client could see.
            if !wasOpen { series.opened() }
            series.transferred(
                fromClient: Int(record.bytesFromDownstream), toClient: Int(record.bytesFromUpstream))
            series.closed(record.reason)
        }
        var line = line(of: record)
        line.end(record.reason, wasOpen: wasOpen, after: now - record.startedAt)
        line.error = record.error ?? line.error
        line.policy = record.policy
        log.append(line)
    }

    /// Their openings and ends are counted at once: the kernel reports no more than the ends.
    func closed(_ connections: [DirectConnection], in snapshot: MeshSnapshot) {
        // Found once for all connections of a pair: of short ones there are thousands.
        var known: [DirectConnection.Ends: Pair] = [:]
        for connection in connections {
            let pair: Pair
            if let found = known[connection.ends] {
                pair = found
            } else {
                let record = connection.record(in: snapshot)
                pair = Pair(series: allLabels(record).map(metrics.connections), line: line(of: record))
                known[connection.ends] = pair
            }
            for series in pair.series {
                series.opened()
                series.transferred(
                    fromClient: Int(connection.bytesFromClient), toClient: Int(connection.bytesToClient))
                series.closed(connection.reason)
            }
            var line = pair.line
            line.time = .now()
            line.source = connection.source
            line.destination = connection.service ?? connection.destination
            line.bytesFromClient = connection.bytesFromClient
            line.bytesToClient = connection.bytesToClient
            line.end(
                connection.reason, wasOpen: connection.isEstablished, after: connection.endedAt - connection.startedAt)
            line.policy = connection.policy
            line.kernel = .init(
                roundTripMicroseconds: connection.roundTripMicroseconds, retransmits: connection.retransmits,
                bytesAccelerated: connection.bytesAccelerated)
            log.append(line)
        }
    }

    /// What connections between the same ends have in common.
    private final class Pair {
        let series: [ConnectionSeries]
        let line: AccessLogRecord

        init(series: [ConnectionSeries], line: AccessLogRecord) {
            self.series = series
            self.line = line
        }
    }

    private func line(of record: ConnectionRecord) -> AccessLogRecord {
        var line = AccessLogRecord(
            time: .now(), event: .connectionComplete, direction: record.direction == .inbound ? .inbound : .outbound)
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

extension AccessLogRecord {
    fileprivate mutating func end(_ reason: Reason, wasOpen: Bool, after nanoseconds: UInt64) {
        event = wasOpen || reason == .none ? .connectionComplete : .connectionFailed
        durationNanoseconds = nanoseconds
        error = reason == .none ? nil : reason.sentence
        self.reason = reason
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
