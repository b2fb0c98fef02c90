/// SplitMix64: small, and the same for one seed everywhere.
struct TestRandom: RandomNumberGenerator {
    let seed: UInt64
    private var state: UInt64

    init(seed: UInt64) {
        self.seed = seed
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}

/// The byte at `offset` of the data that a stream carries in one direction: as good as random, and known to both sides.
func patternByte(_ stream: Int32, fromClient: Bool, _ offset: Int) -> UInt8 {
    let key = UInt64(UInt32(bitPattern: stream)) << 33 ^ (fromClient ? 1 << 32 : 0) ^ UInt64(offset)
    return UInt8(truncatingIfNeeded: key &* 0x9e37_79b9_7f4a_7c15 >> 55)
}
