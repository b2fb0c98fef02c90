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

    /// How capture works here (DATAPATH §1); this version knows one level.
    public enum Level: String, Codable, Sendable {
        /// Marks at connect, steering by sk_lookup: nothing missing.
        case full = "L0"
    }

    public struct Check: Codable, Hashable, Sendable {
        /// Stable word for scripts: `cgroup2`, `capability.CAP_BPF`.
        public let id: String
        public let title: String
        public let status: Status
        /// What was found.
        public let detail: String
        /// What to do about it; empty when there is nothing to do.
        public let remedy: String
        /// Whether capture depends on it.
        public let required: Bool

        public init(
            _ id: String, _ title: String, _ status: Status, _ detail: String, remedy: String = "",
            required: Bool = true
        ) {
            self.id = id
            self.title = title
            self.status = status
            self.detail = detail
            self.remedy = remedy
            self.required = required
        }
    }

    public enum Verdict: String, Codable, Sendable {
        case usable
        case unusable
        case unknown
    }

    public let checks: [Check]
    /// The best level this machine passes; nil: none, or it could not be found out (see `verdict`).
    public let level: Level?
    public let verdict: Verdict

    public init(checks: [Check]) {
        self.checks = checks
        let required = checks.filter(\.required)
        verdict =
            if required.contains(where: { $0.status == .fail }) {
                .unusable
            } else if required.contains(where: {
                $0.status == .unknown
            }) { .unknown } else { .usable }
        level = verdict == .usable ? .full : nil
    }
}
