import Synchronization

/// A live set of values keyed by `id`: read it, list it, or watch it change.
///
/// This is what every source of configuration publishes and what consumers derive from: `filter`, `join`, `index(by:)`
/// and `aggregate` make new live views that follow their parents. Two locks keep the order exact: `state` guards the
/// contents and is never held while foreign code runs; `delivery` serialises changes and their notification, so every
/// watcher sees every change once and in order. A handler may read any collection; it must not change or watch the one
/// that is calling it (that would wait for itself).
public final class Collection<Element: Identifiable & Equatable & Sendable>: Sendable
where Element.ID: Hashable & Comparable & Sendable {
    public enum Event: Equatable, Sendable {
        case added(Element)
        case updated(old: Element, new: Element)
        case removed(Element)

        /// The element after the event; nil when it is gone.
        public var current: Element? {
            switch self {
            case .added(let element), .updated(_, let element): element
            case .removed: nil
            }
        }

        /// The element before the event; nil when it is new.
        public var previous: Element? {
            switch self {
            case .added: nil
            case .updated(let element, _), .removed(let element): element
            }
        }
    }

    public typealias Handler = @Sendable ([Event]) -> Void

    enum Change {
        case put(Element)
        case remove(Element.ID)
    }

    private struct State {
        var elements: [Element.ID: Element] = [:]
        var handlers: [UInt64: Handler] = [:]
        var nextHandler: UInt64 = 0
        /// Keeps a derived view subscribed to its parents for as long as the view lives.
        var parents: [Subscription] = []
    }

    private let state = Mutex(State())
    private let delivery = Mutex(())

    public init(_ elements: [Element] = []) {
        state.withLock { state in
            for element in elements { state.elements[element.id] = element }
        }
    }

    public var count: Int { state.withLock { $0.elements.count } }

    public func get(_ id: Element.ID) -> Element? {
        state.withLock { $0.elements[id] }
    }

    /// Every element in the order of `id`. O(n log n).
    public func list() -> [Element] {
        state.withLock { Array($0.elements.values) }.sorted { $0.id < $1.id }
    }

    /// Calls `handler` with the present contents as `added` (also when there are none), then with every change, until
    /// the subscription is cancelled or released.
    public func watch(_ handler: @escaping Handler) -> Subscription {
        delivery.withLock { _ in
            let (key, present) = state.withLock { state in
                state.nextHandler += 1
                state.handlers[state.nextHandler] = handler
                return (state.nextHandler, Array(state.elements.values))
            }
            handler(present.sorted { $0.id < $1.id }.map(Event.added))
            // Holds the collection: a view of a view must not lose the one in the middle, which nobody else holds.
            return Subscription { [self] in
                // The handler is dropped outside the lock: what it captured may run code when it goes.
                _ = state.withLock { $0.handlers.removeValue(forKey: key) }
            }
        }
    }

    /// Makes the contents equal to `elements`; only what differs becomes an event.
    public func replaceAll(with elements: [Element]) {
        apply {
            var gone = Set(state.withLock { $0.elements.keys })
            var changes: [Change] = []
            for element in elements {
                gone.remove(element.id)
                changes.append(.put(element))
            }
            changes.append(contentsOf: gone.sorted().map(Change.remove))
            return changes
        }
    }

    public func insert(_ element: Element) {
        apply { [.put(element)] }
    }

    public func remove(_ id: Element.ID) {
        apply { [.remove(id)] }
    }

    /// Computes changes and performs them as one step in the order of deliveries.
    func apply(_ changes: () -> [Change]) {
        delivery.withLock { _ in
            let changes = changes()
            let (events, handlers) = state.withLock { state in
                (changes.compactMap { Self.perform($0, on: &state.elements) }, Array(state.handlers.values))
            }
            if events.isEmpty { return }
            for handler in handlers { handler(events) }
        }
    }

    func follow(_ parents: [Subscription]) {
        state.withLock { $0.parents.append(contentsOf: parents) }
    }

    private static func perform(_ change: Change, on elements: inout [Element.ID: Element]) -> Event? {
        switch change {
        case .put(let element):
            guard let old = elements.updateValue(element, forKey: element.id) else { return .added(element) }
            return old == element ? nil : .updated(old: old, new: element)
        case .remove(let id):
            return elements.removeValue(forKey: id).map(Event.removed)
        }
    }
}

/// Ends a watch when cancelled or released.
public final class Subscription: Sendable {
    private let action: Mutex<(@Sendable () -> Void)?>

    init(_ action: @escaping @Sendable () -> Void) {
        self.action = Mutex(action)
    }

    deinit { cancel() }

    public func cancel() {
        let action = self.action.withLock { action in
            defer { action = nil }
            return action
        }
        action?()
    }
}
