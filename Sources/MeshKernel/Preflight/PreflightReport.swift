/// Whether this machine can run the node proxy, at which level, and what stands in the way.
public struct PreflightReport: Codable, Hashable, Sendable {
    public enum Status: String, Codable, Sendable {
        case ok
        /// Works, but something is worth knowing.
        case warn
        case fail
        /// Could not be found out, most often for lack of privilege.
        case unknown
    }

    /// The heading a check stands under, in the order of the report.
    public enum Group: String, Codable, Sendable, CaseIterable {
        case kernel, privileges, places, programs, behaviour, conflicts, limits
    }

    /// What a machine may be fit for: the levels of capture (`CaptureLevel`) and the tiers of same-node traffic.
    public enum Use: String, Codable, Sendable, CaseIterable {
        case l0 = "L0"
        case l1 = "L1"
        case l2 = "L2"
        case l3 = "L3"
        /// Same-node connections without a proxy.
        case t1 = "T1"
        /// Same-node bytes around the TCP stack; opt-in by workload.
        case t2 = "T2"

        /// The level it is; nil for a tier.
        public var level: CaptureLevel? { CaptureLevel(rawValue: rawValue) }
    }

    public enum Verdict: String, Codable, Sendable {
        case usable
        case unusable
        case unknown
    }

    public struct Check: Codable, Hashable, Sendable {
        public let group: Group
        /// Stable word for scripts: `cgroup2`, `capability.CAP_BPF`.
        public let id: String
        public let title: String
        public let status: Status
        /// What was found.
        public let detail: String
        /// What is lost beside `neededBy`, in words; empty when nothing is.
        public let cost: String
        /// What to do about it here; empty when there is nothing to do.
        public let remedy: String
        /// What is lost when the check fails; empty for what is only worth knowing.
        public let neededBy: [Use]

        public init(
            _ group: Group, _ id: String, _ title: String, _ status: Status, _ detail: String, cost: String = "",
            remedy: String = "", neededBy: [Use] = []
        ) {
            self.group = group
            self.id = id
            self.title = title
            self.status = status
            self.detail = detail
            self.cost = cost
            self.remedy = remedy
            self.neededBy = neededBy
        }
    }

    /// Whether the machine is fit for one use.
    public struct Fitness: Codable, Hashable, Sendable {
        public let use: Use
        public let verdict: Verdict
        /// Ids of the checks that failed or, where none did, could not be made.
        public let reasons: [String]
    }

    public struct Machine: Codable, Hashable, Sendable {
        /// `6.1.0-18-cloud-amd64`
        public let kernel: String
        /// `x86_64`
        public let architecture: String
        /// `Debian GNU/Linux 12 (bookworm)`; as far as it can be seen from where the probe runs.
        public let distribution: String

        public init(kernel: String, architecture: String, distribution: String) {
            self.kernel = kernel
            self.architecture = architecture
            self.distribution = distribution
        }
    }

    public let machine: Machine
    public let checks: [Check]
    /// One for each use, in order.
    public let uses: [Fitness]
    /// What this version of the node has of all that, best first.
    public let offered: [Use]
    /// The best level offered that this machine passes for certain; nil: none (see `verdict`).
    public let level: CaptureLevel?
    /// The best level nothing speaks against: better than `level` where something could not be found out.
    public let possibleLevel: CaptureLevel?
    /// Whether there is a usable level.
    public let verdict: Verdict

    public init(machine: Machine, offered: [Use], checks: [Check]) {
        self.machine = machine
        self.offered = offered
        self.checks = checks
        let uses = Self.assess(checks)
        self.uses = uses
        let levels = uses.filter { $0.use.level != nil && offered.contains($0.use) }
        level = levels.first { $0.verdict == .usable }?.use.level
        possibleLevel = levels.first { $0.verdict != .unusable }?.use.level
        verdict = level != nil ? .usable : possibleLevel != nil ? .unknown : .unusable
    }

    public func fitness(_ use: Use) -> Fitness {
        // Every use was assessed by the initialiser; a decoded report may lack one.
        uses.first { $0.use == use } ?? Fitness(use: use, verdict: .unknown, reasons: [])
    }

    /// The checks that stand between the machine and a use.
    public func obstacles(to use: Use) -> [Check] {
        fitness(use).reasons.compactMap { id in checks.first { $0.id == id } }
    }

    /// Whether the machine is at least as good as `required`.
    public func meets(_ required: CaptureLevel) -> Verdict {
        if let level, level <= required { return .usable }
        if let possibleLevel, possibleLevel <= required { return .unknown }
        return .unusable
    }

    /// A level is as good as the checks it needs. T1 needs its own and one of the levels that steer by sk_lookup; T2
    /// needs its own and T1.
    private static func assess(_ checks: [Check]) -> [Fitness] {
        func own(_ use: Use) -> Fitness {
            let needed = checks.filter { $0.neededBy.contains(use) }
            let failed = needed.filter { $0.status == .fail }.map(\.id)
            let unknown = needed.filter { $0.status == .unknown }.map(\.id)
            return failed.isEmpty
                ? Fitness(use: use, verdict: unknown.isEmpty ? .usable : .unknown, reasons: unknown)
                : Fitness(use: use, verdict: .unusable, reasons: failed)
        }
        let levels = [Use.l0, .l1, .l2, .l3].map(own)
        let steering = levels[0].verdict == .usable || levels[1].verdict == .unusable ? levels[0] : levels[1]
        let direct = both(own(.t1), steering)
        return levels + [direct, both(own(.t2), direct)]
    }

    /// The first use, on top of the second.
    private static func both(_ use: Fitness, _ ground: Fitness) -> Fitness {
        let verdicts = [use.verdict, ground.verdict]
        let verdict: Verdict =
            verdicts.contains(.unusable) ? .unusable : verdicts.contains(.unknown) ? .unknown : .usable
        let reasons = [use, ground].filter { $0.verdict == verdict && verdict != .usable }.flatMap(\.reasons)
        var seen: Set<String> = []
        return Fitness(use: use.use, verdict: verdict, reasons: reasons.filter { seen.insert($0).inserted })
    }
}
