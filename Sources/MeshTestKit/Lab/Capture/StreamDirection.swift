/// One direction of a captured TCP connection, put back in order as far as judging it needs: each byte is looked at
/// once and forgotten.
struct StreamDirection {
    /// Application bytes seen, without repetitions.
    private(set) var bytes = 0
    /// The SYN was seen, so the first byte is the connection's first.
    private(set) var isFromStart = false
    /// Bytes that the capture missed or that came too far out of order.
    private(set) var hasGap = false
    private(set) var walk = TLSRecordWalk()
    private(set) var markers: Set<Int> = []
    /// The first bytes, for evidence.
    private(set) var beginning: [UInt8] = []
    /// The sequence number of the SYN.
    private(set) var initialSequence: UInt32?

    private var next: UInt32?
    private var early: [(sequence: UInt32, payload: [UInt8])] = []
    private var earlyBytes = 0
    private var search: MarkerSearch

    private static let earlyLimit = 4 << 20
    private static let beginningLimit = 48

    init(markers: [[UInt8]]) {
        search = MarkerSearch(markers)
    }

    mutating func open(sequence: UInt32) {
        initialSequence = sequence
        next = sequence &+ 1
        isFromStart = true
    }

    mutating func receive(_ payload: UnsafeRawBufferPointer, sequence: UInt32) {
        guard !payload.isEmpty else { return }
        let expected = next ?? sequence
        next = expected
        let distance = Int(Int32(bitPattern: sequence &- expected))
        if distance > 0 {
            earlyBytes += payload.count
            early.append((sequence, Array(payload)))
            if earlyBytes > Self.earlyLimit { skipGap() }
            return
        }
        guard payload.count > -distance else { return }
        deliver(UnsafeRawBufferPointer(rebasing: payload[(-distance)...]))
        drainEarly()
    }

    /// What waits behind a hole at the end of a capture still has to be searched.
    mutating func finish() {
        while !early.isEmpty { skipGap() }
    }

    private mutating func deliver(_ payload: UnsafeRawBufferPointer) {
        bytes += payload.count
        next = next.map { $0 &+ UInt32(truncatingIfNeeded: payload.count) }
        if beginning.count < Self.beginningLimit {
            beginning += payload.prefix(Self.beginningLimit - beginning.count)
        }
        if isFromStart, !hasGap { walk.feed(payload) }
        markers.formUnion(search.feed(payload))
    }

    private mutating func drainEarly() {
        while let expected = next,
            let index = early.firstIndex(where: { Int32(bitPattern: $0.sequence &- expected) <= 0 })
        {
            let (sequence, payload) = early.remove(at: index)
            earlyBytes -= payload.count
            let overlap = Int(expected &- sequence)
            if payload.count > overlap {
                payload.withUnsafeBytes { deliver(UnsafeRawBufferPointer(rebasing: $0[overlap...])) }
            }
        }
    }

    private mutating func skipGap() {
        guard let expected = next else { return }
        let nearest = early.min { ($0.sequence &- expected) < ($1.sequence &- expected) }
        guard let nearest else { return }
        hasGap = true
        search.forget()
        next = nearest.sequence
        drainEarly()
    }
}
