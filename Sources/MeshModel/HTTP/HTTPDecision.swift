/// What route matching looks at.
public struct HTTPRequestFacts: Sendable {
    public struct Header: Hashable, Sendable {
        /// Lower-case.
        public var name: String
        public var value: String

        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    public var method: String
    /// Without query.
    public var path: String
    /// The `Host` field or `:authority`, with or without port.
    public var host: String
    public var headers: [Header]

    public init(method: String, path: String, host: String, headers: [Header] = []) {
        self.method = method
        self.path = path
        self.host = host
        self.headers = headers
    }
}

/// What to do with a request.
public enum HTTPDecision: Hashable, Sendable {
    /// Send it to an endpoint of this backend, after the header modifiers in order. `route` nil: no route is attached,
    /// the service goes to itself.
    case forward(backend: ObjectName, port: UInt16, modifiers: [HTTPRoute.HeaderModifier], route: ObjectName?)
    /// Answer at once: 404 no rule matched, 500 the rule has no valid backend. `route` is the rule's, when one matched.
    case respond(status: Int, Reason, route: ObjectName?)
}
