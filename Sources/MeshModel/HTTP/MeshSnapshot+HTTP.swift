extension MeshSnapshot {
    /// Chooses what to do with a request to a service, by the routes attached to that service's port.
    ///
    /// Routes whose hosts name the request's more closely come first, then Gateway API's precedence of matches. Of the
    /// chosen rule's backends one is drawn by weight, and an invalid one answers 500 for its share.
    public func decideHTTP(
        service: ObjectName, port: UInt16, request: HTTPRequestFacts, using chance: inout some RandomNumberGenerator
    ) -> HTTPDecision {
        guard let table = httpRoutes.tables[HTTPRouteIndex.Key(service: service, port: port)] else {
            return .forward(backend: service, port: port, modifiers: [], route: nil)
        }
        guard let candidate = bestMatch(in: table, request) else {
            return .respond(status: 404, .routeNotFound, route: nil)
        }
        let route = routes[candidate.route]
        let rule = route.rules[candidate.rule]
        guard let backend = rule.backends.draw(using: &chance), isValid(backend) else {
            return .respond(status: 500, .noBackend, route: route.name)
        }
        return .forward(
            backend: backend.service, port: backend.port, modifiers: rule.requestHeaders + backend.requestHeaders,
            route: route.name)
    }

    private func bestMatch(in table: HTTPRouteIndex.Table, _ request: HTTPRequestFacts) -> HTTPRouteIndex.Candidate? {
        guard table.namesHosts else { return table.candidates.first { $0.match.matches(request) } }
        let host = canonicalHost(request.host)
        var best: (candidate: HTTPRouteIndex.Candidate, specificity: Int)?
        for candidate in table.candidates {
            guard let specificity = routes[candidate.route].hostSpecificity(host) else { continue }
            if let best, specificity <= best.specificity { continue }
            if candidate.match.matches(request) { best = (candidate, specificity) }
        }
        return best?.candidate
    }

    private func isValid(_ backend: HTTPRoute.Backend) -> Bool {
        guard let position = index.serviceByName[backend.service] else { return false }
        return services[position].ports.contains { $0.port == backend.port }
    }
}

extension [HTTPRoute.Backend] {
    /// Nil when there is none or every weight is 0.
    fileprivate func draw(using chance: inout some RandomNumberGenerator) -> HTTPRoute.Backend? {
        let total = reduce(UInt64(0)) { $0 + UInt64($1.weight) }
        guard total > 0 else { return nil }
        var point = UInt64.random(in: 0..<total, using: &chance)
        for backend in self {
            if point < UInt64(backend.weight) { return backend }
            point -= UInt64(backend.weight)
        }
        return nil
    }
}
