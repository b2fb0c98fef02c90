public import MeshRuntime

/// How unkind a simulated network is.
public struct SimulatedWeather: Sendable {
    /// The most that one read, one write or one delivery carries; nil: whatever there is.
    public var largestPiece: Int?
    /// How often, of 100 calls, a read or write that could go on blocks all the same.
    public var wouldBlockPercent: Int
    /// How often, of 100 steps, a direction delivers nothing.
    public var delayPercent: Int

    public static let calm = SimulatedWeather(largestPiece: nil, wouldBlockPercent: 0, delayPercent: 0)

    public init(largestPiece: Int?, wouldBlockPercent: Int, delayPercent: Int) {
        self.largestPiece = largestPiece
        self.wouldBlockPercent = wouldBlockPercent
        self.delayPercent = delayPercent
    }

    /// Any weather.
    public init(random: inout CoreRandom) {
        largestPiece = Bool.random(using: &random) ? Int.random(in: 1...5_000, using: &random) : nil
        wouldBlockPercent = Int.random(in: 0...30, using: &random)
        delayPercent = Int.random(in: 0...50, using: &random)
    }
}

/// Carries bytes between pairs of simulated streams on one core with a manual clock: bounded, in pieces and with
/// delays that the seed decides, so that a run repeats exactly. In the steady state it allocates nothing.
///
/// Streams only change what can be read or written, and only tell their owners, inside `step`; never inside a call that
/// an owner makes.
public final class SimulatedNetwork {
    public let core: Core
    public let seed: UInt64
    public var weather: SimulatedWeather
    var random: CoreRandom
    private var streams: [SimulatedStream] = []
    /// What somebody did against the contract of `ByteStream`, in words.
    public internal(set) var violations: [String] = []

    /// A world whose every choice follows from `seed`.
    public init(seed: UInt64, weather: SimulatedWeather = .calm) throws(SystemError) {
        core = try Core(index: 0, clock: .manual, seed: seed)
        self.seed = seed
        self.weather = weather
        random = CoreRandom(seed: seed ^ 0x5eed)
    }

    /// A choice of this world.
    public func choose(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }

    /// Two ends of a connection. Each direction holds at most `capacity` bytes that nobody read.
    /// - Parameter connecting: the first end is still being connected: it blocks, and its owner hears that it is
    ///   writable (see `SocketStream`).
    public func pair(capacity: Int, connecting: Bool = false) -> (SimulatedStream, SimulatedStream) {
        let (there, back) = (SimulatedPipe(capacity: capacity), SimulatedPipe(capacity: capacity))
        let near = SimulatedStream(self, sending: there, receiving: back, isConnecting: connecting)
        let far = SimulatedStream(self, sending: back, receiving: there, isConnecting: false)
        near.peer = far
        far.peer = near
        streams.append(near)
        streams.append(far)
        return (near, far)
    }

    func pieceOf(_ count: Int) -> Int {
        guard let largest = weather.largestPiece, count > 1 else { return count }
        return min(count, Int.random(in: 1...largest, using: &random))
    }

    func happens(_ percent: Int) -> Bool { percent > 0 && Int.random(in: 1...100, using: &random) <= percent }

    /// Streams that are not closed.
    public var openStreams: Int { streams.count { !$0.isReleased } }

    /// One turn of the core and one round of deliveries; false when nothing happened and nothing is on its way.
    @discardableResult
    public func step(advancing nanoseconds: UInt64 = 0) -> Bool {
        core.turn(advancing: nanoseconds)
        var isBusy = false
        var someAreGone = false
        var index = 0
        while index < streams.count {
            let stream = streams[index]
            if !stream.isReleased, stream.step() { isBusy = true }
            if stream.isGone { someAreGone = true }
            index += 1
        }
        if someAreGone { streams.removeAll(where: \.isGone) }
        return isBusy
    }

    /// Steps until nothing happens any more; false when that does not come about.
    @discardableResult
    public func settle(atMost limit: Int = 1_000_000) -> Bool {
        var quiet = 0
        for _ in 0..<limit {
            // Work may have been put off to the next turn.
            quiet = step() ? 0 : quiet + 1
            if quiet == 3 { return true }
        }
        return false
    }

    func violated(_ rule: String) { violations.append("\(rule) (world \(seed))") }
}
