public import MeshModel
internal import MeshRuntime

/// An open connection as the admin endpoints show it.
public struct ConnectionSummary: Sendable {
    public let record: ConnectionRecord
    public let bytesForward: UInt64
    public let bytesBackward: UInt64
    public let ageNanoseconds: UInt64

    /// The workload of this proxy whose connection it is.
    public var workload: ObjectName? {
        (record.direction == .inbound ? record.destinationWorkload : record.sourceWorkload)?.name
    }

    /// The identity at the other end, once proven.
    public var peerIdentity: SPIFFEID? {
        record.direction == .inbound ? record.sourceIdentity : record.destinationIdentity
    }
}

extension ProxyCore {
    /// Every open connection, in no order.
    public func connectionSummaries() -> [ConnectionSummary] {
        var summaries: [ConnectionSummary] = []
        connections.forEach { connection in
            summaries.append(
                ConnectionSummary(
                    record: connection.record, bytesForward: connection.bytesForward,
                    bytesBackward: connection.bytesBackward, ageNanoseconds: core.now - connection.record.startedAt))
        }
        return summaries
    }
}
