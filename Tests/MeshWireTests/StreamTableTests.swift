import Testing

@testable import MeshWire

@Suite struct StreamTableTests {
    /// Against the slow, obvious table.
    @Test func agreesWithADictionary() {
        var chance = TestRandom(seed: .random(in: 0...UInt64.max))
        print("stream table seed \(chance.seed)")
        var table = StreamTable()
        var model: [Int32: Int32] = [:]
        for _ in 0..<20_000 {
            let id = Int32.random(in: 0...200, using: &chance) * 2 + 1
            switch chance.next() % 4 {
            case 0, 1:
                guard model[id] == nil else { continue }
                table.insert(id)
                model[id] = 0
            case 2:
                let removed = table.remove(id)?.unconsumed
                let expected = model.removeValue(forKey: id)
                #expect(removed == expected, "seed \(chance.seed)")
            default:
                guard let index = table.index(of: id) else {
                    #expect(model[id] == nil, "seed \(chance.seed)")
                    continue
                }
                table[index].unconsumed += 5
                model[id]! += 5
            }
            let count = table.count
            #expect(count == model.count, "seed \(chance.seed)")
        }
        for (id, value) in model {
            let found = table.index(of: id).map { table[$0].unconsumed }
            #expect(found == value, "seed \(chance.seed)")
        }
    }

    @Test func slotsAreSmall() {
        #expect(MemoryLayout<StreamTable.Slot>.stride == 12)
    }

    @Test func bucketsAllowABurstAndThenARate() {
        var bucket = TokenBucket(burst: 3, perSecond: 2)
        func take(_ count: Int, at now: UInt64) -> [Bool] { (0..<count).map { _ in bucket.take(at: now) } }
        #expect(take(5, at: 1_000) == [true, true, true, false, false])
        #expect(take(1, at: 400_000_000) == [false])
        #expect(take(2, at: 500_001_000) == [true, false])
        // A long rest fills it to the burst and no further; time that runs backwards adds nothing.
        #expect(take(4, at: .max / 2) == [true, true, true, false])
        #expect(take(1, at: 1) == [false])
    }
}
