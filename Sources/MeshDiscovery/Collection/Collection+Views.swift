import Synchronization

/// A left element with the right one it names, if that exists.
public struct Joined<Left: Identifiable & Equatable & Sendable, Right: Equatable & Sendable>: Identifiable, Equatable,
    Sendable
where Left.ID: Sendable {
    public let left: Left
    public let right: Right?
    public var id: Left.ID { left.id }
}

/// The value computed over all elements that share a key.
public struct Aggregate<Key: Hashable & Comparable & Sendable, Value: Equatable & Sendable>: Identifiable, Equatable,
    Sendable
{
    public let key: Key
    public let value: Value
    public var id: Key { key }
}

extension Collection {
    /// A live view of the elements that satisfy `isIncluded`.
    public func filter(_ isIncluded: @escaping @Sendable (Element) -> Bool) -> Collection<Element> {
        let view = Collection<Element>()
        let subscription = watch { [weak view] events in
            view?.apply {
                events.map { event in
                    if let element = event.current, isIncluded(element) { return .put(element) }
                    return .remove((event.current ?? event.previous!).id)
                }
            }
        }
        view.follow([subscription])
        return view
    }

    /// A live view that sets beside every element the element of `other` that it names; nil when it names none or the
    /// other one is missing.
    public func join<Other>(
        _ other: Collection<Other>, on reference: @escaping @Sendable (Element) -> Other.ID?
    ) -> Collection<Joined<Element, Other>> {
        let view = Collection<Joined<Element, Other>>()
        let table = JoinTable<Element, Other>(reference: reference)
        let lefts = watch { [weak view] events in
            view?.apply { events.map(table.left) }
        }
        let rights = other.watch { [weak view] events in
            view?.apply { events.flatMap(table.right) }
        }
        view.follow([lefts, rights])
        return view
    }

    /// A live index: elements found by any of the keys that `keys` gives for them.
    public func index<Key: Hashable & Sendable>(by keys: @escaping @Sendable (Element) -> [Key]) -> Index<Key, Element>
    {
        let index = Index<Key, Element>(keys: keys)
        index.follow(watch { [weak index] events in index?.apply(events) })
        return index
    }

    /// A live view with one value for each key, computed over the elements of that key; elements with key nil are left
    /// out, and a key without elements disappears.
    public func aggregate<Key: Hashable & Comparable & Sendable, Value: Equatable & Sendable>(
        by key: @escaping @Sendable (Element) -> Key?, _ combine: @escaping @Sendable ([Element]) -> Value
    ) -> Collection<Aggregate<Key, Value>> {
        let view = Collection<Aggregate<Key, Value>>()
        let groups = Index<Key, Element> { element in key(element).map { [$0] } ?? [] }
        let subscription = watch { [weak view] events in
            view?.apply {
                groups.apply(events).sorted().map { key in
                    let members = groups[key]
                    return members.isEmpty ? .remove(key) : .put(Aggregate(key: key, value: combine(members)))
                }
            }
        }
        view.follow([subscription])
        return view
    }
}

/// Elements of a collection by a key other than their own; follows the collection it was made from.
public final class Index<Key: Hashable & Sendable, Element: Identifiable & Equatable & Sendable>: Sendable
where Element.ID: Hashable & Comparable & Sendable {
    private struct State {
        var elements: [Key: [Element.ID: Element]] = [:]
        var parent: Subscription?
    }

    private let keys: @Sendable (Element) -> [Key]
    private let state = Mutex(State())

    init(keys: @escaping @Sendable (Element) -> [Key]) {
        self.keys = keys
    }

    /// The elements with this key in the order of their `id`.
    public subscript(key: Key) -> [Element] {
        state.withLock { Array($0.elements[key, default: [:]].values) }.sorted { $0.id < $1.id }
    }

    func follow(_ parent: Subscription) {
        state.withLock { $0.parent = parent }
    }

    /// Returns the keys whose elements changed.
    @discardableResult
    func apply(_ events: [Collection<Element>.Event]) -> Set<Key> {
        let moves = events.map { event in
            (event, old: event.previous.map(keys) ?? [], new: event.current.map(keys) ?? [])
        }
        return state.withLock { state in
            var touched: Set<Key> = []
            for (event, old, new) in moves {
                for key in old {
                    state.elements[key]?[event.previous!.id] = nil
                    if state.elements[key]?.isEmpty == true { state.elements[key] = nil }
                    touched.insert(key)
                }
                for key in new {
                    state.elements[key, default: [:]][event.current!.id] = event.current!
                    touched.insert(key)
                }
            }
            return touched
        }
    }
}

/// What a join remembers of both sides. Only used inside the deliveries of the joined view, which come one at a time.
private final class JoinTable<Left: Identifiable & Equatable & Sendable, Right: Identifiable & Equatable & Sendable>:
    Sendable
where Left.ID: Hashable & Comparable & Sendable, Right.ID: Hashable & Comparable & Sendable {
    private struct State {
        var lefts: [Left.ID: Left] = [:]
        var rights: [Right.ID: Right] = [:]
        var wanted: [Right.ID: Set<Left.ID>] = [:]
    }

    private let reference: @Sendable (Left) -> Right.ID?
    private let state = Mutex(State())

    init(reference: @escaping @Sendable (Left) -> Right.ID?) {
        self.reference = reference
    }

    func left(_ event: Collection<Left>.Event) -> Collection<Joined<Left, Right>>.Change {
        let old = event.previous.flatMap(reference)
        let new = event.current.flatMap(reference)
        return state.withLock { state in
            if let previous = event.previous {
                state.lefts[previous.id] = nil
                if let old { state.wanted[old]?.remove(previous.id) }
                if let old, state.wanted[old]?.isEmpty == true { state.wanted[old] = nil }
            }
            guard let current = event.current else { return .remove(event.previous!.id) }
            state.lefts[current.id] = current
            if let new { state.wanted[new, default: []].insert(current.id) }
            return .put(Joined(left: current, right: new.flatMap { state.rights[$0] }))
        }
    }

    func right(_ event: Collection<Right>.Event) -> [Collection<Joined<Left, Right>>.Change] {
        state.withLock { state in
            let id = (event.current ?? event.previous!).id
            state.rights[id] = event.current
            return state.wanted[id, default: []].sorted().compactMap { left in
                state.lefts[left].map { .put(Joined(left: $0, right: event.current)) }
            }
        }
    }
}
