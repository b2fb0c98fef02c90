/// Durations in buckets of the caller's choice.
struct TimeHistogram: Hashable, Sendable {
    /// Upper bounds in seconds, ascending.
    let bounds: [Double]
    /// One more than there are bounds: the last counts what is slower than all. Not cumulative.
    private(set) var counts: [UInt64]
    private(set) var sumNanoseconds: UInt64 = 0

    init(bounds: [Double]) {
        self.bounds = bounds
        counts = [UInt64](repeating: 0, count: bounds.count + 1)
    }

    mutating func record(_ nanoseconds: UInt64) {
        let seconds = Double(nanoseconds) / 1_000_000_000
        counts[bounds.firstIndex { seconds <= $0 } ?? bounds.count] += 1
        sumNanoseconds &+= nanoseconds
    }

    mutating func add(_ other: TimeHistogram) {
        for position in counts.indices { counts[position] += other.counts[position] }
        sumNanoseconds &+= other.sumNanoseconds
    }
}

/// A core's histogram of how long something took.
public final class TimeSeries {
    private var histogram: TimeHistogram

    init(bounds: [Double]) { histogram = TimeHistogram(bounds: bounds) }

    public func record(_ nanoseconds: UInt64) { histogram.record(nanoseconds) }

    func take() -> TimeHistogram {
        defer { histogram = TimeHistogram(bounds: histogram.bounds) }
        return histogram
    }
}
