import MeshModel
import Testing

@testable import MeshTelemetry

@Suite("Counters, their merging and their text")
struct MetricsTests {
    static func workload(_ name: String, _ namespace: String = "default") -> Workload {
        Workload(
            name: ObjectName(namespace: namespace, name: name), labels: ["app": "\(name)-app", "version": "v1"],
            addresses: [], node: "n", serviceAccount: name)
    }

    static let mesh = MeshSnapshot(workloads: [workload("client"), workload("server")])

    static func labels(
        from source: String = "client", reporter: Reporter = .source, requestProtocol: RequestProtocol = .tcp
    ) -> ConnectionLabels {
        let (source, server) = (workload(source), workload("server"))
        return ConnectionLabels(
            reporter: reporter, source: Party(source, principal: source.identity),
            destination: Party(server, principal: server.identity),
            service: ObjectName(namespace: "default", name: "shop"), requestProtocol: requestProtocol, mutualTLS: true)
    }

    /// Value of the sample whose line starts with `name` and contains every part.
    func sample(_ text: String, _ name: String, _ parts: String...) -> String? {
        let line = text.split(separator: "\n").first { line in
            line.hasPrefix(name + "{") && parts.allSatisfy { line.contains($0) }
        }
        return line.map { String($0.split(separator: " ").last ?? "") }
    }

    @Test("Connections are counted per label set, with Istio's names and the flip of sent and received")
    func connections() {
        let core = CoreMetrics(core: 0)
        let series = core.connections(Self.labels())
        series.opened()
        series.opened()
        series.transferred(fromClient: 100, toClient: 7)
        series.closed(.none)
        series.closed(.policyDeny)
        let registry = MetricsRegistry()
        registry.absorb(core.drain())
        let text = registry.render(mesh: Self.mesh)
        #expect(sample(text, "istio_tcp_connections_opened_total", "response_flags=\"-\"") == "2")
        #expect(sample(text, "istio_tcp_connections_closed_total", "response_flags=\"-\"", "reason=\"-\"") == "1")
        #expect(
            sample(text, "istio_tcp_connections_closed_total", "response_flags=\"DENY\"", "reason=\"policy_deny\"")
                == "1")
        #expect(sample(text, "istio_tcp_connections_failed_total", "response_flags=\"DENY\"") == "1")
        #expect(sample(text, "istio_tcp_received_bytes_total") == "100")
        #expect(sample(text, "istio_tcp_sent_bytes_total") == "7")
        #expect(text.contains("# TYPE istio_tcp_connections_opened_total counter\n"))
        #expect(!text.contains("istio_requests_total"))
    }

    @Test("All traffic labels, in Istio's order; localities only where one is known")
    func labelText() {
        let text = Self.labels().text(flags: "-")
        let names = text.split(separator: ",").map { String($0.prefix { $0 != "=" }) }
        #expect(
            names == [
                "reporter", "source_workload", "source_canonical_service", "source_canonical_revision",
                "source_workload_namespace", "source_principal", "source_app", "source_version", "source_cluster",
                "destination_service", "destination_service_namespace", "destination_service_name",
                "destination_workload", "destination_canonical_service", "destination_canonical_revision",
                "destination_workload_namespace", "destination_principal", "destination_app", "destination_version",
                "destination_cluster", "request_protocol", "response_flags", "connection_security_policy",
            ])
        #expect(text.contains("destination_service=\"shop.default.svc.cluster.local\""))
        #expect(text.contains("source_principal=\"spiffe://cluster.local/ns/default/sa/client\""))
        #expect(text.contains("source_app=\"client-app\"") && text.contains("source_workload=\"client\""))
        var placed = Self.labels()
        placed.source.zone = "z1"
        #expect(
            placed.text(flags: "-").hasSuffix(
                "source_region=\"unknown\",source_zone=\"z1\",destination_region=\"unknown\","
                    + "destination_zone=\"unknown\""))
        let stranger = Party(nil, principal: nil)
        #expect(stranger.workload == "unknown" && stranger.namespace == "unknown" && stranger.name == nil)
    }

    @Test("Cores add up, and draining twice counts nothing twice")
    func merging() {
        let registry = MetricsRegistry()
        let cores = (0..<3).map { CoreMetrics(core: $0) }
        for core in cores {
            core.connections(Self.labels()).opened()
            core.counter("culvert_things_total", help: "Things.", [.init("kind", "a")]).add(2)
            core.gauge("culvert_open", help: "Open.", [.init("kind", "a")]).value = 5
        }
        for _ in 0..<2 {
            for core in cores { registry.absorb(core.drain()) }
        }
        cores[0].gauge("culvert_open", help: "Open.", [.init("kind", "a")]).add(-5)
        registry.absorb(cores[0].drain())
        let text = registry.render(mesh: Self.mesh)
        #expect(sample(text, "istio_tcp_connections_opened_total") == "3")
        #expect(sample(text, "culvert_things_total") == "6")
        #expect(sample(text, "culvert_open") == "10")
    }

    @Test("A core forgets series that nobody holds, and keeps those somebody does")
    func forgetting() {
        let core = CoreMetrics(core: 0)
        let registry = MetricsRegistry()
        let held = core.connections(Self.labels())
        core.connections(Self.labels(reporter: .destination)).opened()
        registry.absorb(core.drain())
        #expect(core.drain().connections.isEmpty)
        held.opened()
        core.connections(Self.labels(reporter: .destination)).opened()
        registry.absorb(core.drain())
        let text = registry.render(mesh: Self.mesh)
        #expect(sample(text, "istio_tcp_connections_opened_total", "reporter=\"source\"") == "1")
        #expect(sample(text, "istio_tcp_connections_opened_total", "reporter=\"destination\"") == "2")
        #expect(core.connections(Self.labels()) === held)
    }

    @Test("A series whose workload is gone is shown once more and then forgotten")
    func expiry() {
        let core = CoreMetrics(core: 0)
        let registry = MetricsRegistry()
        core.connections(Self.labels()).opened()
        core.connections(Self.labels(from: "leaver")).opened()
        core.requests(Self.labels(from: "leaver")).completed(status: 200, reason: .none, durationNanoseconds: 1)
        registry.absorb(core.drain())
        let with = MeshSnapshot(workloads: Self.mesh.workloads + [Self.workload("leaver")])
        for (mesh, isShown) in [(with, true), (with, true), (Self.mesh, true), (Self.mesh, false)] {
            let text = registry.render(mesh: mesh)
            #expect(text.contains("source_workload=\"leaver\"") == isShown)
            #expect(text.contains("istio_requests_total") == isShown)
            #expect(text.contains("source_workload=\"client\""))
        }
    }

    @Test("Requests carry code and flag, and durations fall into Istio's buckets")
    func requests() {
        let core = CoreMetrics(core: 0)
        let series = core.requests(Self.labels(reporter: .waypoint, requestProtocol: .http))
        series.completed(status: 200, reason: .none, durationNanoseconds: 500_000)
        series.completed(status: 200, reason: .none, durationNanoseconds: 750_000)
        series.completed(status: 200, reason: .none, durationNanoseconds: 9_000_000_000_000)
        series.completed(status: 503, reason: .noHealthyUpstream, durationNanoseconds: 1)
        let registry = MetricsRegistry()
        registry.absorb(core.drain())
        let text = registry.render(mesh: Self.mesh)
        let (total, family) = ("istio_requests_total", "istio_request_duration_milliseconds")
        #expect(
            sample(text, total, "response_code=\"200\"", "reporter=\"waypoint\"", "request_protocol=\"http\"") == "3")
        #expect(sample(text, total, "response_code=\"503\"", "response_flags=\"UH\"") == "1")
        let ok = "response_code=\"200\""
        #expect(sample(text, family + "_bucket", ok, "le=\"0.5\"") == "1")
        #expect(sample(text, family + "_bucket", ok, "le=\"1\"") == "2")
        #expect(sample(text, family + "_bucket", ok, "le=\"3600000\"") == "2")
        #expect(sample(text, family + "_bucket", ok, "le=\"+Inf\"") == "3")
        #expect(sample(text, family + "_count", ok) == "3")
        #expect(sample(text, family + "_sum", ok) == "9000001.25")
        #expect(text.contains("# TYPE istio_request_duration_milliseconds histogram\n"))
    }

    @Test("Text is escaped, and always in the same order")
    func text() {
        let registry = MetricsRegistry()
        registry.set(1, of: MetricKey("culvert_z", [.init("path", "a\\b\"c\nd")]), help: "One\\two\nthree \"four\".")
        registry.set(2, of: MetricKey("culvert_z", [.init("path", "a")]), help: "One\\two\nthree \"four\".")
        registry.set(-3, of: MetricKey("culvert_a"), help: "A.")
        registry.add(4, to: MetricKey("culvert_total"), help: "T.")
        registry.setTotal(9, of: MetricKey("culvert_kernel_total"), help: "K.")
        let expected = #"""
            # HELP culvert_kernel_total K.
            # TYPE culvert_kernel_total counter
            culvert_kernel_total 9
            # HELP culvert_total T.
            # TYPE culvert_total counter
            culvert_total 4
            # HELP culvert_a A.
            # TYPE culvert_a gauge
            culvert_a -3
            # HELP culvert_z One\\two\nthree "four".
            # TYPE culvert_z gauge
            culvert_z{path="a"} 2
            culvert_z{path="a\\b\"c\nd"} 1

            """#
        #expect(registry.render(mesh: Self.mesh) == expected)
        #expect(registry.render(mesh: Self.mesh) == expected)
    }

    @Test("Every reason has flags", arguments: Reason.allCases)
    func flags(_ reason: Reason) {
        #expect((reason == .none) == (reason.requestFlag == "-"))
        #expect(!reason.connectionFlag.isEmpty)
    }
}
