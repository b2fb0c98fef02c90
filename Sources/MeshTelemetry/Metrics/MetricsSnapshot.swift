import MeshModel

/// The name and labels of a plain counter or gauge.
public struct MetricKey: Hashable, Sendable {
    public struct Label: Hashable, Sendable {
        public let name: String
        public let value: String

        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    public let name: String
    public let labels: [Label]

    public init(_ name: String, _ labels: [Label] = []) {
        self.name = name
        self.labels = labels
    }
}

/// What one core counted since it was last asked: a value that crosses to the control thread. Counters are
/// differences, gauges are what they are now.
public struct MetricsSnapshot: Sendable {
    struct Connections: Hashable, Sendable {
        var opened: UInt64 = 0
        /// From the client, and to the client: see `ConnectionSeries.transferred`.
        var received: UInt64 = 0
        var sent: UInt64 = 0
        var closed: [Reason: UInt64] = [:]

        var isEmpty: Bool { opened == 0 && received == 0 && sent == 0 && closed.isEmpty }

        mutating func add(_ other: Connections) {
            opened &+= other.opened
            received &+= other.received
            sent &+= other.sent
            closed.merge(other.closed, uniquingKeysWith: &+)
        }
    }

    struct Outcome: Hashable, Sendable {
        let status: Int
        let flag: String
    }

    typealias Requests = [Outcome: DurationHistogram]

    public let core: Int
    var connections: [ConnectionLabels: Connections] = [:]
    var requests: [ConnectionLabels: Requests] = [:]
    var counters: [MetricKey: UInt64] = [:]
    var gauges: [MetricKey: Int64] = [:]
    var timings: [MetricKey: TimeHistogram] = [:]
    var help: [String: String] = [:]
}
