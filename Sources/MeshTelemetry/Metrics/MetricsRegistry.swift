public import MeshModel
import Synchronization

/// All cores' counts together, on the control thread, and their Prometheus text.
///
/// A series one of whose workloads is no longer in the mesh is shown once more, with its last numbers, and then
/// forgotten; without that a long-lived node would carry every pod it ever saw.
public final class MetricsRegistry: Sendable {
    struct State {
        var connections: [ConnectionLabels: MetricsSnapshot.Connections] = [:]
        var requests: [ConnectionLabels: MetricsSnapshot.Requests] = [:]
        var counters: [MetricKey: UInt64] = [:]
        var gauges: [MetricKey: [Int: Int64]] = [:]
        var timings: [MetricKey: TimeHistogram] = [:]
        var help: [String: String] = [:]
    }

    /// Where gauges of the control thread stand among the cores'.
    private static let controlThread = -1
    private let state = Mutex(State())

    public init() {}

    /// Adds what a core counted since the last time.
    public func absorb(_ snapshot: MetricsSnapshot) {
        state.withLock { state in
            for (labels, counts) in snapshot.connections {
                state.connections[labels, default: .init()].add(counts)
            }
            for (labels, outcomes) in snapshot.requests {
                for (outcome, durations) in outcomes {
                    state.requests[labels, default: [:]][outcome, default: .init()].add(durations)
                }
            }
            for (key, amount) in snapshot.counters {
                state.counters[key, default: 0] &+= amount
            }
            for (key, value) in snapshot.gauges {
                state.gauges[key, default: [:]][snapshot.core] = value
            }
            for (key, histogram) in snapshot.timings {
                state.timings[key, default: TimeHistogram(bounds: histogram.bounds)].add(histogram)
            }
            state.help.merge(snapshot.help) { _, new in new }
        }
    }

    /// Counts something that the control thread did.
    public func add(_ amount: UInt64 = 1, to key: MetricKey, help: String) {
        state.withLock { state in
            state.counters[key, default: 0] &+= amount
            state.help[key.name] = help
        }
    }

    /// Sets a counter that is kept elsewhere, a kernel map for instance, to its total.
    public func setTotal(_ total: UInt64, of key: MetricKey, help: String) {
        state.withLock { state in
            state.counters[key] = total
            state.help[key.name] = help
        }
    }

    public func set(_ value: Int64, of key: MetricKey, help: String) {
        state.withLock { state in
            state.gauges[key, default: [:]][MetricsRegistry.controlThread] = value
            state.help[key.name] = help
        }
    }

    /// Prometheus text (exposition format 0.0.4): families and series always in the same order. `mesh` is what
    /// decides which workloads are gone.
    public func render(mesh: MeshSnapshot) -> String {
        let shown = state.withLock { state in
            defer { state.forget(goneFrom: mesh) }
            return state
        }
        return shown.prometheusText()
    }
}

extension MetricsRegistry.State {
    mutating func forget(goneFrom mesh: MeshSnapshot) {
        func isGone(_ party: Party) -> Bool {
            party.name.map { mesh.workload(named: $0) == nil } ?? false
        }
        connections = connections.filter { !isGone($0.key.source) && !isGone($0.key.destination) }
        requests = requests.filter { !isGone($0.key.source) && !isGone($0.key.destination) }
    }
}
