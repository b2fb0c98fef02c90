import MeshDiscovery
import Synchronization
import Testing

private struct Item: Identifiable, Equatable, Sendable {
    var id: String
    var group: String
    var value: Int
}

/// Collects what a watcher is told.
private final class Log<Element: Identifiable & Equatable & Sendable>: Sendable
where Element.ID: Hashable & Comparable & Sendable {
    private let batches = Mutex<[[Collection<Element>.Event]]>([])

    func take() -> [[Collection<Element>.Event]] {
        batches.withLock { batches in
            defer { batches = [] }
            return batches
        }
    }

    func append(_ events: [Collection<Element>.Event]) {
        batches.withLock { $0.append(events) }
    }
}

@Suite struct CollectionTests {
    private let a = Item(id: "a", group: "x", value: 1)
    private let b = Item(id: "b", group: "x", value: 2)
    private let c = Item(id: "c", group: "y", value: 3)

    @Test func watchersSeeThePresentThenEveryDifferenceOnce() {
        let items = Collection([b, a])
        let log = Log<Item>()
        let subscription = items.watch { log.append($0) }
        #expect(log.take() == [[.added(a), .added(b)]])

        var changed = a
        changed.value = 9
        items.replaceAll(with: [changed, c])
        #expect(log.take() == [[.updated(old: a, new: changed), .added(c), .removed(b)]])

        items.replaceAll(with: [c, changed])
        #expect(log.take() == [])

        subscription.cancel()
        items.remove("c")
        #expect(log.take() == [])
        #expect(items.list() == [changed])
        #expect(items.get("c") == nil)
    }

    @Test func anEmptyCollectionTellsItsWatcherSo() {
        let log = Log<Item>()
        let subscription = Collection<Item>().watch { log.append($0) }
        #expect(log.take() == [[]])
        subscription.cancel()
    }

    @Test func filterFollowsElementsAcrossTheBorder() {
        let items = Collection([a, b, c])
        let large = items.filter { $0.value > 1 }
        #expect(large.list() == [b, c])
        var grown = a
        grown.value = 5
        items.insert(grown)
        items.remove("c")
        #expect(large.list() == [grown, b])
        items.insert(a)
        #expect(large.list() == [b])
    }

    @Test func joinFollowsBothSides() {
        let left = Collection([a, c])
        let right = Collection([Item(id: "x", group: "", value: 10)])
        let joined = left.join(right) { $0.group }
        #expect(joined.get("a")?.right?.value == 10)
        #expect(joined.get("c")?.right == nil)
        right.insert(Item(id: "y", group: "", value: 20))
        #expect(joined.get("c")?.right?.value == 20)
        right.remove("x")
        #expect(joined.get("a")?.right == nil)
        var moved = a
        moved.group = "y"
        left.insert(moved)
        #expect(joined.get("a")?.right?.value == 20)
        left.remove("a")
        #expect(joined.list().map(\.id) == ["c"])
    }

    @Test func indexAndAggregateFollow() {
        let items = Collection([a, b, c])
        let byGroup = items.index { [$0.group] }
        let sums = items.aggregate(by: \.group) { $0.reduce(0) { $0 + $1.value } }
        #expect(byGroup["x"] == [a, b])
        #expect(sums.list().map(\.value) == [3, 3])
        items.remove("c")
        var moved = b
        moved.group = "z"
        items.insert(moved)
        #expect(byGroup["x"] == [a])
        #expect(byGroup["y"] == [])
        #expect(sums.list().map(\.key) == ["x", "z"])
        #expect(sums.list().map(\.value) == [1, 2])
    }

    @Test func viewsOfViewsKeepWhatIsBetweenThem() {
        let items = Collection([a, b, c])
        let index = items.filter { $0.value < 9 }.filter { $0.value > 1 }.index { [$0.group] }
        items.insert(Item(id: "d", group: "y", value: 4))
        #expect(index["y"].map(\.id) == ["c", "d"])
        #expect(index["x"].map(\.id) == ["b"])
    }

    /// Any sequence of changes leaves every view equal to one computed from scratch.
    @Test func viewsAgreeWithTheirDefinition() {
        var random = SystemRandomNumberGenerator()
        let seed = UInt64.random(in: 0...UInt64.max, using: &random)
        var chance = SplitMix(seed: seed)
        let left = Collection<Item>()
        let right = Collection<Item>()
        let even = left.filter { $0.value.isMultiple(of: 2) }
        let joined = left.join(right) { $0.group }
        let counts = left.aggregate(by: \.group) { $0.count }
        for _ in 0..<400 {
            let side = Bool.random(using: &chance) ? left : right
            let id = String(Int.random(in: 0..<8, using: &chance))
            if Int.random(in: 0..<3, using: &chance) == 0 {
                side.remove(id)
            } else {
                let group = String(Int.random(in: 0..<8, using: &chance))
                side.insert(Item(id: id, group: group, value: Int.random(in: 0..<4, using: &chance)))
            }
        }
        let lefts = left.list()
        #expect(even.list() == lefts.filter { $0.value.isMultiple(of: 2) }, "seed \(seed)")
        #expect(joined.list().map(\.left) == lefts, "seed \(seed)")
        #expect(joined.list().map(\.right) == lefts.map { right.get($0.group) }, "seed \(seed)")
        let expected = Dictionary(grouping: lefts, by: \.group).mapValues(\.count)
        #expect(Dictionary(uniqueKeysWithValues: counts.list().map { ($0.key, $0.value) }) == expected, "seed \(seed)")
    }
}
