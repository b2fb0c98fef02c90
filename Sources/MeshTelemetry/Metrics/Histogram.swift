/// Request durations in Istio's buckets.
struct DurationHistogram: Hashable, Sendable {
    /// Upper bounds in milliseconds: the defaults of Envoy's histograms, which Istio's dashboards are drawn for.
    static let bounds: [Double] = [
        0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300_000, 600_000, 1_800_000,
        3_600_000,
    ]
    private static let boundsNanoseconds = bounds.map { UInt64($0 * 1_000_000) }

    /// One more than there are bounds: the last counts what is slower than all. Not cumulative.
    private(set) var counts = [UInt64](repeating: 0, count: bounds.count + 1)
    private(set) var sumNanoseconds: UInt64 = 0

    var count: UInt64 { counts.reduce(0, +) }

    mutating func record(_ nanoseconds: UInt64) {
        let bucket = DurationHistogram.boundsNanoseconds.firstIndex { nanoseconds <= $0 }
        counts[bucket ?? counts.count - 1] += 1
        sumNanoseconds &+= nanoseconds
    }

    mutating func add(_ other: DurationHistogram) {
        for position in counts.indices { counts[position] += other.counts[position] }
        sumNanoseconds &+= other.sumNanoseconds
    }
}
