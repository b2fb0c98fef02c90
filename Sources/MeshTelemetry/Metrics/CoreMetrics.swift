public import MeshModel

/// The counters of one core. Not Sendable: only the core's own thread touches it, so nothing here is atomic.
///
/// A connection looks its series up once and keeps it; counting is then an addition. From time to time, and before
/// every scrape, the control thread asks the core for `drain()` and gives the value to a `MetricsRegistry`. A core
/// keeps no totals: a series that nobody holds is forgotten at the next drain, so memory follows live traffic.
public final class CoreMetrics {
    public let core: Int
    private var connectionSeries: [ConnectionLabels: ConnectionSeries] = [:]
    private var requestSeries: [ConnectionLabels: RequestSeries] = [:]
    private var counters: [MetricKey: Counter] = [:]
    private var gauges: [MetricKey: Gauge] = [:]
    private var timings: [MetricKey: TimeSeries] = [:]
    private var help: [String: String] = [:]

    public init(core: Int) {
        self.core = core
    }

    /// Connections with these labels.
    public func connections(_ labels: ConnectionLabels) -> ConnectionSeries {
        if let known = connectionSeries[labels] { return known }
        let series = ConnectionSeries()
        connectionSeries[labels] = series
        return series
    }

    /// Requests with these labels.
    public func requests(_ labels: ConnectionLabels) -> RequestSeries {
        if let known = requestSeries[labels] { return known }
        let series = RequestSeries()
        requestSeries[labels] = series
        return series
    }

    /// The counter of this name and these labels; ask once and keep it.
    public func counter(_ name: String, help text: String, _ labels: [MetricKey.Label] = []) -> Counter {
        let key = MetricKey(name, labels)
        if let known = counters[key] { return known }
        let counter = Counter()
        counters[key] = counter
        help[name] = text
        return counter
    }

    /// The gauge of this name and these labels; what is shown is the sum over all cores.
    public func gauge(_ name: String, help text: String, _ labels: [MetricKey.Label] = []) -> Gauge {
        let key = MetricKey(name, labels)
        if let known = gauges[key] { return known }
        let gauge = Gauge()
        gauges[key] = gauge
        help[name] = text
        return gauge
    }

    /// How long something took, as a histogram in seconds; ask once and keep it.
    /// - Parameter bounds: upper bounds of the buckets in seconds, ascending; the same for every series of the name.
    public func times(
        _ name: String, help text: String, _ labels: [MetricKey.Label] = [], bounds: [Double]
    ) -> TimeSeries {
        let key = MetricKey(name, labels)
        if let known = timings[key] { return known }
        let series = TimeSeries(bounds: bounds)
        timings[key] = series
        help[name] = text
        return series
    }

    /// Takes what was counted since the last call. Every value taken must reach the registry, or it is lost.
    public func drain() -> MetricsSnapshot {
        var snapshot = MetricsSnapshot(core: core, help: help)
        connectionSeries.drain { snapshot.connections[$0] = $1.take() }
        requestSeries.drain { snapshot.requests[$0] = $1.take() }
        for (key, counter) in counters {
            snapshot.counters[key] = counter.take()
        }
        for (key, gauge) in gauges {
            snapshot.gauges[key] = gauge.value
        }
        for (key, series) in timings {
            snapshot.timings[key] = series.take()
        }
        return snapshot
    }
}

extension Dictionary where Value: AnyObject {
    /// Visits every series, and drops those that only the dictionary holds.
    fileprivate mutating func drain(_ visit: (Key, Value) -> Void) {
        var idle: [Key] = []
        var position = startIndex
        while position != endIndex {
            if isKnownUniquelyReferenced(&values[position]) { idle.append(self[position].key) }
            visit(self[position].key, self[position].value)
            formIndex(after: &position)
        }
        for key in idle { self[key] = nil }
    }
}

/// Connections that share all their labels.
public final class ConnectionSeries {
    private var counts = MetricsSnapshot.Connections()

    init() {}

    public func opened() {
        counts.opened += 1
    }

    /// `reason` gives `response_flags` too, and with a flag the connection counts as failed.
    public func closed(_ reason: Reason) {
        counts.closed[reason, default: 0] += 1
    }

    /// Bytes of the application, by who sent them. In Istio's families `received` is what the client sent and `sent`
    /// is what the client got, whoever reports: to a client they look reversed, and dashboards rely on it.
    public func transferred(fromClient: Int = 0, toClient: Int = 0) {
        counts.received &+= UInt64(fromClient)
        counts.sent &+= UInt64(toClient)
    }

    /// Nil when nothing happened.
    fileprivate func take() -> MetricsSnapshot.Connections? {
        if counts.isEmpty { return nil }
        defer { counts = MetricsSnapshot.Connections() }
        return counts
    }
}

/// Requests that share all their labels but the outcome.
public final class RequestSeries {
    private var outcomes: MetricsSnapshot.Requests = [:]

    init() {}

    /// The response (or the reset in its place) is complete. `status` 0: no status was sent.
    public func completed(status: Int, reason: Reason, durationNanoseconds: UInt64) {
        let outcome = MetricsSnapshot.Outcome(status: status, flag: reason.requestFlag)
        outcomes[outcome, default: DurationHistogram()].record(durationNanoseconds)
    }

    fileprivate func take() -> MetricsSnapshot.Requests? {
        if outcomes.isEmpty { return nil }
        defer { outcomes.removeAll(keepingCapacity: true) }
        return outcomes
    }
}

/// A number that only grows.
public final class Counter {
    private var value: UInt64 = 0

    init() {}

    public func add(_ amount: Int = 1) {
        value &+= UInt64(amount)
    }

    fileprivate func take() -> UInt64 {
        defer { value = 0 }
        return value
    }
}

/// A number as it is now.
public final class Gauge {
    public var value: Int64 = 0

    init() {}

    public func add(_ amount: Int) {
        value += Int64(amount)
    }
}
