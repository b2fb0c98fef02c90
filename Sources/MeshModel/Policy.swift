/// A pattern over a string as Istio's policies write it: `exact`, `prefix*`, `*suffix`, or `*` (present and not empty).
public enum StringMatch: Hashable, Sendable {
    case exact(String)
    case prefix(String)
    case suffix(String)
    case present
}

/// Which workloads a policy covers.
public enum PolicyScope: Hashable, Sendable {
    /// A policy of the root namespace without selector: the whole mesh.
    case mesh
    /// Every workload of the policy's namespace.
    case namespace
    /// Workloads of the namespace (of the mesh, for a policy of the root namespace) that carry all these labels.
    case selector([String: String])
    /// Enforced by the waypoint of these Services (`targetRefs`), never by the node.
    case services([ObjectName])
    /// Enforced by these waypoints for everything behind them (`targetRefs` of kind Gateway).
    case gateways([ObjectName])
}

/// A `security.istio.io/v1 AuthorizationPolicy` reduced to what layer 4 knows.
public struct AuthorizationPolicy: Hashable, Sendable {
    public enum Action: String, Hashable, Sendable {
        case allow = "ALLOW"
        case deny = "DENY"
    }

    /// One entry of `from`: every non-empty list must hold; within a list any entry; `not` lists forbid every entry.
    public struct Source: Hashable, Sendable {
        public var principals: [StringMatch] = []
        public var notPrincipals: [StringMatch] = []
        public var namespaces: [StringMatch] = []
        public var notNamespaces: [StringMatch] = []
        public var ipBlocks: [CIDR] = []
        public var notIPBlocks: [CIDR] = []

        public init() {}
    }

    /// One entry of `to`.
    public struct Operation: Hashable, Sendable {
        public var ports: [UInt16] = []
        public var notPorts: [UInt16] = []

        public init() {}
    }

    /// `from` AND `to`; an empty list is no constraint, entries within a list are alternatives.
    public struct Rule: Hashable, Sendable {
        public var from: [Source]
        public var to: [Operation]

        public init(from: [Source] = [], to: [Operation] = []) {
            self.from = from
            self.to = to
        }
    }

    public var name: ObjectName
    public var scope: PolicyScope
    public var action: Action
    /// No rule: nothing matches, so an ALLOW without rules denies everything.
    public var rules: [Rule]

    public init(name: ObjectName, scope: PolicyScope, action: Action, rules: [Rule]) {
        self.name = name
        self.scope = scope
        self.action = action
        self.rules = rules
    }
}

public enum MutualTLSMode: String, Hashable, Sendable {
    case permissive = "PERMISSIVE"
    case strict = "STRICT"
}

/// A `security.istio.io/v1 PeerAuthentication`. The narrowest scope wins: selector, namespace, mesh, `Mesh.spec.mtls`.
public struct PeerAuthentication: Hashable, Sendable {
    public var name: ObjectName
    public var scope: PolicyScope
    /// nil: UNSET, inherit from the next wider scope.
    public var mode: MutualTLSMode?
    public var portModes: [UInt16: MutualTLSMode]

    public init(
        name: ObjectName, scope: PolicyScope, mode: MutualTLSMode?, portModes: [UInt16: MutualTLSMode] = [:]
    ) {
        self.name = name
        self.scope = scope
        self.mode = mode
        self.portModes = portModes
    }
}
