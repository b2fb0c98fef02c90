/// How the traffic of one workload is captured, flow by flow, with what was counted so far. The node's daemon answers
/// with it, `culvert capture explain` shows it, and its fields are those of `--output json`.
public struct CaptureExplanation: Codable, Hashable, Sendable {
    /// What the workload is, as the node's configuration has it.
    public struct Subject: Codable, Hashable, Sendable {
        /// `NAMESPACE/NAME`.
        public var name: String
        public var identity: String
        public var addresses: [String]
        /// Path of its network namespace.
        public var netns: String?
        /// The node it belongs to.
        public var node: String

        public init(_ workload: Workload) {
            name = workload.name.description
            identity = workload.identity.description
            addresses = workload.addresses.map(\.description)
            netns = workload.netns
            node = workload.node
        }
    }

    /// A socket of the node proxy inside the workload.
    public struct Listener: Codable, Hashable, Sendable {
        /// `outbound`, `inbound`, `tunnel` or `dns`.
        public var role: String
        public var port: UInt16
        /// false: what is steered to it is refused.
        public var isPresent: Bool

        public init(role: String, port: UInt16, isPresent: Bool) {
            self.role = role
            self.port = port
            self.isPresent = isPresent
        }
    }

    public enum Direction: String, Codable, CaseIterable, Sendable {
        case outbound
        case inbound
        /// What never leaves the workload's network namespace.
        case inside
    }

    /// Events of one kind since the workload was captured, by whichever daemon.
    public struct Counter: Codable, Hashable, Sendable {
        /// As the label `event` of `culvert_capture_events_total`.
        public var event: String
        public var count: UInt64
        /// What one of them is.
        public var meaning: String
        /// A refusal, or something lost: 0 where all is well.
        public var isTrouble: Bool
        /// The word in the access log, for refusals that have one.
        public var reason: String?

        public init(event: String, count: UInt64, meaning: String, isTrouble: Bool, reason: String? = nil) {
            self.event = event
            self.count = count
            self.meaning = meaning
            self.isTrouble = isTrouble
            self.reason = reason
        }
    }

    /// One kind of traffic.
    public struct Flow: Codable, Hashable, Sendable {
        /// Stable: `outbound.proxied`.
        public var id: String
        public var direction: Direction
        /// Which traffic it is.
        public var title: String
        /// What becomes of it.
        public var path: String
        /// `T0`, `T1` or `T2`; nil where tiers say nothing.
        public var tier: String?
        /// The hooks that catch it, in the order a connection meets them; empty: none does.
        public var hooks: [String]
        /// Whether this workload can have such traffic now.
        public var isPossible: Bool
        /// Why not, or what decides.
        public var note: String?
        /// Empty: it is not counted by itself.
        public var counters: [Counter]

        public init(
            id: String, direction: Direction, title: String, path: String, tier: String? = nil, hooks: [String],
            isPossible: Bool = true, note: String? = nil, counters: [Counter] = []
        ) {
            self.id = id
            self.direction = direction
            self.title = title
            self.path = path
            self.tier = tier
            self.hooks = hooks
            self.isPossible = isPossible
            self.note = note
            self.counters = counters
        }
    }

    /// How connections of the workload to another one of its node go.
    public struct Neighbour: Codable, Hashable, Sendable {
        public var name: String
        public var tier: String
        /// For which ports otherwise, or what keeps connections from being direct.
        public var note: String

        public init(name: String, tier: String, note: String) {
            self.name = name
            self.tier = tier
            self.note = note
        }
    }

    /// How one TCP connection of the workload would go.
    public struct Route: Codable, Hashable, Sendable {
        /// `ADDRESS:PORT`.
        public var destination: String
        /// The row that it falls in, by its id.
        public var flow: String
        public var tier: String?
        /// What decides, one after the other.
        public var steps: [String]

        public init(destination: String, flow: String, tier: String?, steps: [String]) {
            self.destination = destination
            self.flow = flow
            self.tier = tier
            self.steps = steps
        }
    }

    public var workload: Subject
    /// The node whose daemon answers.
    public var node: String
    public var isCaptured: Bool
    /// Why it is not captured, or what is wrong with its capture.
    public var problem: String?
    /// `L0` to `L3`.
    public var level: String
    /// Why no better level; nil: it is the best, or was asked for.
    public var levelReason: String?
    /// Where the hooks are.
    public var place: String
    /// Which connections are the mesh's.
    public var scope: String
    /// `STRICT` or `PERMISSIVE`, of ports that have no mode of their own.
    public var mtls: String
    public var sameNode: String
    /// Empty where the kernel does not tell.
    public var listeners: [Listener]
    public var flows: [Flow]
    public var neighbours: [Neighbour]
    /// To the destination that was asked for.
    public var route: Route?

    public init(
        workload: Subject, node: String, isCaptured: Bool, problem: String? = nil, level: String,
        levelReason: String? = nil, place: String, scope: String, mtls: String, sameNode: String,
        listeners: [Listener] = [], flows: [Flow] = [], neighbours: [Neighbour] = [], route: Route? = nil
    ) {
        self.workload = workload
        self.node = node
        self.isCaptured = isCaptured
        self.problem = problem
        self.level = level
        self.levelReason = levelReason
        self.place = place
        self.scope = scope
        self.mtls = mtls
        self.sameNode = sameNode
        self.listeners = listeners
        self.flows = flows
        self.neighbours = neighbours
        self.route = route
    }
}
