/// The matches of every route by the service port they hold for, in the order of Gateway API's precedence.
struct HTTPRouteIndex: Sendable {
    struct Key: Hashable {
        let service: ObjectName
        let port: UInt16
    }

    struct Candidate: Sendable {
        let match: HTTPRoute.Match
        let route: Int
        let rule: Int
    }

    struct Table: Sendable {
        var candidates: [Candidate] = []
        /// When no route names a host the first match is the answer.
        var namesHosts = false
    }

    private(set) var tables: [Key: Table] = [:]

    /// Only routes of the Service's own namespace are taken: a route of another namespace (GAMMA's consumer route)
    /// speaks for that namespace's callers only, and must not bend everybody's traffic.
    init(routes: [HTTPRoute], services: [Service]) {
        guard !routes.isEmpty else { return }
        let byName = Dictionary(services.map { ($0.name, $0) }) { first, _ in first }
        for (position, route) in routes.enumerated() {
            var keys: Set<Key> = []
            for parent in route.parents where parent.service.namespace == route.name.namespace {
                guard let service = byName[parent.service] else { continue }
                for port in service.ports where parent.port == nil || parent.port == port.port {
                    keys.insert(Key(service: service.name, port: port.port))
                }
            }
            for key in keys {
                tables[key, default: Table()].add(route, at: position)
            }
        }
        for key in tables.keys {
            tables[key]?.candidates.sort { left, right in
                HTTPRouteIndex.precedes(left, right, routes)
            }
        }
    }

    /// Exact path, then longest prefix, then method, then most headers; between routes the first by name, within one
    /// the first rule.
    private static func precedes(_ left: Candidate, _ right: Candidate, _ routes: [HTTPRoute]) -> Bool {
        let (leftRank, rightRank) = (left.match.rank, right.match.rank)
        if leftRank != rightRank { return leftRank > rightRank }
        if left.route == right.route { return left.rule < right.rule }
        return (routes[left.route].name, left.route) < (routes[right.route].name, right.route)
    }
}

extension HTTPRouteIndex.Table {
    fileprivate mutating func add(_ route: HTTPRoute, at position: Int) {
        if !route.hostnames.isEmpty { namesHosts = true }
        for (rulePosition, rule) in route.rules.enumerated() {
            for match in rule.matches {
                candidates.append(.init(match: match, route: position, rule: rulePosition))
            }
        }
    }
}

extension HTTPRoute.Match {
    /// Larger wins.
    fileprivate var rank: (Int, Int, Int, Int) {
        let (kind, length) =
            switch path {
            case .exact(let text): (1, text.utf8.count)
            case .prefix(let text): (0, text.utf8.count)
            }
        return (kind, length, method == nil ? 0 : 1, headers.count)
    }
}
