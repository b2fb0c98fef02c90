import MeshModel

extension MetricsRegistry.State {
    func prometheusText() -> String {
        var text = PrometheusText()
        appendConnections(to: &text)
        appendRequests(to: &text)
        for (name, series) in Dictionary(grouping: counters, by: \.key.name).sorted(by: { $0.key < $1.key }) {
            text.family(
                name, "counter", help[name] ?? name,
                series.map { (PrometheusText.labels($0.key.labels), String($0.value)) })
        }
        for (name, series) in Dictionary(grouping: gauges, by: \.key.name).sorted(by: { $0.key < $1.key }) {
            text.family(
                name, "gauge", help[name] ?? name,
                series.map { (PrometheusText.labels($0.key.labels), String($0.value.values.reduce(0, +))) })
        }
        for (name, series) in Dictionary(grouping: timings, by: \.key.name).sorted(by: { $0.key < $1.key }) {
            text.timings(name, help[name] ?? name, series.map { (PrometheusText.labels($0.key.labels), $0.value) })
        }
        return text.text
    }

    private func appendConnections(to text: inout PrometheusText) {
        typealias Series = [(labels: String, value: String)]
        var opened: Series = []
        var closed: Series = []
        var failed: Series = []
        var received: Series = []
        var sent: Series = []
        for (labels, counts) in connections {
            let calm = labels.text(flags: Reason.none.connectionFlag)
            if counts.opened > 0 { opened.append((calm, String(counts.opened))) }
            received.append((calm, String(counts.received)))
            sent.append((calm, String(counts.sent)))
            var failures: [String: UInt64] = [:]
            for (reason, count) in counts.closed {
                let flag = reason.connectionFlag
                let word = PrometheusText.Label("reason", reason.rawValue)
                closed.append((labels.text(flags: flag, more: [word]), String(count)))
                if flag != Reason.none.connectionFlag { failures[flag, default: 0] += count }
            }
            for (flag, count) in failures { failed.append((labels.text(flags: flag), String(count))) }
        }
        text.family("istio_tcp_connections_opened_total", "counter", "Connections opened.", opened)
        text.family("istio_tcp_connections_closed_total", "counter", "Connections closed.", closed)
        text.family("istio_tcp_connections_failed_total", "counter", "Connections closed with a failure.", failed)
        text.family("istio_tcp_received_bytes_total", "counter", "Bytes that clients sent.", received)
        text.family("istio_tcp_sent_bytes_total", "counter", "Bytes that were sent to clients.", sent)
    }

    private func appendRequests(to text: inout PrometheusText) {
        var totals: [(labels: String, value: String)] = []
        var durations: [(labels: String, histogram: DurationHistogram)] = []
        for (labels, outcomes) in requests {
            for (outcome, histogram) in outcomes {
                let code = PrometheusText.Label("response_code", String(outcome.status))
                let series = labels.text(flags: outcome.flag, more: [code])
                totals.append((series, String(histogram.count)))
                durations.append((series, histogram))
            }
        }
        text.family("istio_requests_total", "counter", "Requests completed.", totals)
        text.histograms("istio_request_duration_milliseconds", "Duration of requests in milliseconds.", durations)
    }
}

/// Builds exposition text. Series of a family are sorted by their label text.
struct PrometheusText {
    typealias Label = MetricKey.Label

    private(set) var text = ""

    static func labels(_ labels: [Label]) -> String {
        var text = ""
        for label in labels {
            if !text.isEmpty { text += "," }
            text += label.name
            text += "=\""
            escape(label.value, quote: true, into: &text)
            text += "\""
        }
        return text
    }

    mutating func family(_ name: String, _ type: String, _ help: String, _ series: [(labels: String, value: String)]) {
        if series.isEmpty { return }
        head(name, type, help)
        for (labels, value) in series.sorted(by: { $0.labels < $1.labels }) {
            sample(name, labels, value)
        }
    }

    mutating func histograms(
        _ name: String, _ help: String, _ series: [(labels: String, histogram: DurationHistogram)]
    ) {
        if series.isEmpty { return }
        head(name, "histogram", help)
        for (labels, histogram) in series.sorted(by: { $0.labels < $1.labels }) {
            var below: UInt64 = 0
            for (position, count) in histogram.counts.enumerated() {
                below += count
                let isLast = position == DurationHistogram.bounds.count
                let bound = isLast ? "+Inf" : PrometheusText.number(DurationHistogram.bounds[position])
                sample(name + "_bucket", labels + ",le=\"\(bound)\"", String(below))
            }
            let milliseconds = Double(histogram.sumNanoseconds) / 1_000_000
            sample(name + "_sum", labels, PrometheusText.number(milliseconds))
            sample(name + "_count", labels, String(below))
        }
    }

    mutating func timings(_ name: String, _ help: String, _ series: [(labels: String, histogram: TimeHistogram)]) {
        head(name, "histogram", help)
        for (labels, histogram) in series.sorted(by: { $0.labels < $1.labels }) {
            let prefix = labels.isEmpty ? "" : labels + ","
            var below: UInt64 = 0
            for (position, count) in histogram.counts.enumerated() {
                below += count
                let isLast = position == histogram.bounds.count
                let bound = isLast ? "+Inf" : PrometheusText.number(histogram.bounds[position])
                sample(name + "_bucket", prefix + "le=\"\(bound)\"", String(below))
            }
            sample(name + "_sum", labels, PrometheusText.number(Double(histogram.sumNanoseconds) / 1_000_000_000))
            sample(name + "_count", labels, String(below))
        }
    }

    /// Whole numbers without `.0`, as Prometheus writes its own.
    private static func number(_ value: Double) -> String {
        let text = String(value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    private mutating func head(_ name: String, _ type: String, _ help: String) {
        text += "# HELP \(name) "
        PrometheusText.escape(help, quote: false, into: &text)
        text += "\n# TYPE \(name) \(type)\n"
    }

    private mutating func sample(_ name: String, _ labels: String, _ value: String) {
        text += name
        if !labels.isEmpty { text += "{\(labels)}" }
        text += " \(value)\n"
    }

    /// Backslash and line feed are escaped everywhere, the quote in label values only.
    private static func escape(_ value: String, quote: Bool, into text: inout String) {
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\"" where quote: text += "\\\""
            default: text.unicodeScalars.append(scalar)
            }
        }
    }
}

extension ConnectionLabels {
    /// All labels in Istio's order; `more` are those of one family.
    func text(flags: String, more: [MetricKey.Label] = []) -> String {
        typealias Label = MetricKey.Label
        var labels = [Label("reporter", reporter.rawValue)]
        labels += source.labels(prefix: "source")
        labels.append(Label("destination_service", service?.serviceHost ?? Party.unknown))
        labels.append(Label("destination_service_namespace", service?.namespace ?? Party.unknown))
        labels.append(Label("destination_service_name", service?.name ?? Party.unknown))
        labels += destination.labels(prefix: "destination")
        labels.append(Label("request_protocol", requestProtocol.rawValue))
        labels.append(Label("response_flags", flags))
        labels.append(Label("connection_security_policy", mutualTLS ? "mutual_tls" : Party.unknown))
        let localities = [source.region, source.zone, destination.region, destination.zone]
        // Localities are left out altogether when neither end has one, as in Istio.
        if localities.contains(where: { !$0.isEmpty }) {
            let names = ["source_region", "source_zone", "destination_region", "destination_zone"]
            for (name, value) in zip(names, localities) {
                labels.append(Label(name, value.isEmpty ? Party.unknown : value))
            }
        }
        return PrometheusText.labels(labels + more)
    }
}

extension Party {
    fileprivate func labels(prefix: String) -> [MetricKey.Label] {
        [
            .init("\(prefix)_workload", workload),
            .init("\(prefix)_canonical_service", app),
            .init("\(prefix)_canonical_revision", version),
            .init("\(prefix)_workload_namespace", namespace),
            .init("\(prefix)_principal", principal?.description ?? Party.unknown),
            .init("\(prefix)_app", app),
            .init("\(prefix)_version", version),
            .init("\(prefix)_cluster", Party.unknown),
        ]
    }
}
