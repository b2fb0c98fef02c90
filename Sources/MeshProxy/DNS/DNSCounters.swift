internal import MeshModel
internal import MeshTelemetry
internal import MeshWire

/// What one workload's DNS counts, under Istio's names where Istio has one.
final class DNSCounters {
    /// Where an answer came from.
    enum Source: String, CaseIterable {
        /// The mesh knows the name.
        case mesh
        case cache
        /// The cache, past its time: no upstream answers.
        case stale
        case upstream
        /// No upstream answered, and nothing was kept.
        case failure
        /// It could not be understood, or is a kind of question that is not served here.
        case refused
    }

    private let metrics: CoreMetrics
    private let labels: [MetricKey.Label]
    private let answers: [Counter]
    private let upstream: Counter
    private let failures: Counter
    private var questions: [String: Counter] = [:]
    private let durations: TimeSeries

    init(_ metrics: CoreMetrics, _ workload: Workload) {
        self.metrics = metrics
        let party = Party(workload, principal: nil)
        let labels = [
            MetricKey.Label("source_canonical_service", party.app),
            MetricKey.Label("source_canonical_revision", party.version),
        ]
        self.labels = labels
        answers = Source.allCases.map {
            metrics.counter(
                "culvert_dns_answers_total", help: "DNS answers by where they came from",
                labels + [.init("source", $0.rawValue)])
        }
        upstream = metrics.counter(
            "istio_dns_upstream_requests_total", help: "DNS questions asked of upstream servers", labels)
        failures = metrics.counter(
            "istio_dns_upstream_failures_total", help: "DNS questions that no upstream server answered", labels)
        durations = metrics.times(
            "istio_dns_upstream_request_duration_seconds", help: "How long upstream servers took to answer", labels,
            bounds: [0.0005, 0.001, 0.01, 0.1, 1, 5])
    }

    /// `type` nil: not a message.
    func asked(_ type: DNSType?, isStream: Bool) {
        let label = type?.label ?? "unknown"
        let key = isStream ? "\(label)/tcp" : label
        if let counter = questions[key] { return counter.add() }
        let counter = metrics.counter(
            "istio_dns_requests_total", help: "DNS questions of workloads",
            [.init("request_query_type", label), .init("request_protocol", isStream ? "tcp" : "udp")] + labels)
        questions[key] = counter
        counter.add()
    }

    func answered(_ source: Source) {
        guard let position = Source.allCases.firstIndex(of: source) else { return }
        answers[position].add()
    }

    func upstreamAsked() { upstream.add() }

    func upstreamEnded(after nanoseconds: UInt64, _ outcome: DNSLookup.Outcome) {
        durations.record(nanoseconds)
        if case .failed = outcome { failures.add() }
    }
}
