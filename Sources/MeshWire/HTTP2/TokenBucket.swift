/// Allows a burst, then a rate. Time comes from the caller.
struct TokenBucket {
    private let nanosecondsPerToken: UInt64
    private let capacity: UInt64
    /// Nanoseconds of credit.
    private var credit: UInt64
    private var last: UInt64?

    init(burst: Int, perSecond: Int) {
        nanosecondsPerToken = 1_000_000_000 / UInt64(max(perSecond, 1))
        capacity = UInt64(max(burst, 1)) * nanosecondsPerToken
        credit = capacity
    }

    /// False when the bucket is empty. `now` is monotonic, in nanoseconds.
    mutating func take(at now: UInt64) -> Bool {
        if let last, now > last {
            let gained = now - last
            credit = gained >= capacity - credit ? capacity : credit + gained
        }
        last = now
        guard credit >= nanosecondsPerToken else { return false }
        credit -= nanosecondsPerToken
        return true
    }
}
