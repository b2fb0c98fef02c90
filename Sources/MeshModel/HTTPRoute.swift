/// A `gateway.networking.k8s.io/v1 HTTPRoute` attached to Services (GAMMA).
public struct HTTPRoute: Hashable, Sendable {
    public struct Parent: Hashable, Sendable {
        public var service: ObjectName
        /// nil: every port of the service.
        public var port: UInt16?

        public init(service: ObjectName, port: UInt16? = nil) {
            self.service = service
            self.port = port
        }
    }

    public enum PathMatch: Hashable, Sendable {
        case exact(String)
        /// Matches whole path elements: `/a` matches `/a`, `/a/` and `/a/b`, not `/ab`.
        case prefix(String)
    }

    /// Exact match of a header's value; the name is lower-case and compared without case.
    public struct HeaderMatch: Hashable, Sendable {
        public var name: String
        public var value: String

        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    /// All parts given must hold.
    public struct Match: Hashable, Sendable {
        public var path: PathMatch
        public var headers: [HeaderMatch]
        public var method: String?

        public init(path: PathMatch = .prefix("/"), headers: [HeaderMatch] = [], method: String? = nil) {
            self.path = path
            self.headers = headers
            self.method = method
        }
    }

    /// `RequestHeaderModifier`: first `set`, then `add`, then `remove`. Names are lower-case.
    public struct HeaderModifier: Hashable, Sendable {
        public struct Field: Hashable, Sendable {
            public var name: String
            public var value: String

            public init(name: String, value: String) {
                self.name = name
                self.value = value
            }
        }

        public var set: [Field]
        public var add: [Field]
        public var remove: [String]

        public init(set: [Field] = [], add: [Field] = [], remove: [String] = []) {
            self.set = set
            self.add = add
            self.remove = remove
        }
    }

    public struct Backend: Hashable, Sendable {
        public var service: ObjectName
        public var port: UInt16
        /// Share of requests relative to the sum of the rule's weights; 0 gets none.
        public var weight: UInt32
        public var requestHeaders: [HeaderModifier]

        public init(service: ObjectName, port: UInt16, weight: UInt32 = 1, requestHeaders: [HeaderModifier] = []) {
            self.service = service
            self.port = port
            self.weight = weight
            self.requestHeaders = requestHeaders
        }
    }

    public struct Rule: Hashable, Sendable {
        /// At least one: an absent list in the object means one match of prefix `/`.
        public var matches: [Match]
        public var requestHeaders: [HeaderModifier]
        public var backends: [Backend]

        public init(matches: [Match] = [Match()], requestHeaders: [HeaderModifier] = [], backends: [Backend] = []) {
            self.matches = matches
            self.requestHeaders = requestHeaders
            self.backends = backends
        }
    }

    public var name: ObjectName
    public var parents: [Parent]
    /// Host names, lower-case, `*.` wildcards allowed; empty matches every host.
    public var hostnames: [String]
    public var rules: [Rule]

    public init(name: ObjectName, parents: [Parent], hostnames: [String] = [], rules: [Rule]) {
        self.name = name
        self.parents = parents
        self.hostnames = hostnames
        self.rules = rules
    }
}
