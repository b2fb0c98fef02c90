import MeshModel
import Testing

@Suite struct NameTests {
    private static func hosted(_ text: String, _ address: String, hostname: String, healthy: Bool = true) -> Workload {
        var made = workload(text, address, healthy: healthy)
        made.hostname = hostname
        return made
    }

    private let client = workload("default/client", "10.0.0.1")
    private let snapshot: MeshSnapshot = {
        var far = workload("data/db-2", "10.0.0.13", labels: ["app": "db"])
        far.network = "other"
        return MeshSnapshot(
            workloads: [
                workload("default/client", "10.0.0.1"),
                workload("data/db-0", "10.0.0.11", "fd00::11", labels: ["app": "db"]),
                workload("data/db-1", "10.0.0.12", labels: ["app": "db"], healthy: false), far,
                hosted("default/legacy", "10.0.0.20", hostname: "ledger.example.com"),
                hosted("default/legacy-2", "10.0.0.21", hostname: "ledger.example.com"),
                hosted("default/down", "10.0.0.22", hostname: "ledger.example.com", healthy: false),
                hosted("default/odd", "10.0.0.23", hostname: "odd"),
            ],
            services: [
                Service(name: name("default/web"), addresses: [ip("10.96.0.1"), ip("fd96::1")]),
                Service(name: name("data/web"), addresses: [ip("10.96.0.2")]),
                Service(name: name("data/db"), selector: ["app": "db"]),
                Service(name: name("web/pod-0"), addresses: [ip("10.96.0.9")]),
                Service(name: name("default/empty"), selector: ["app": "nothing"]),
            ])
    }()

    private func addresses(_ name: String, for client: Workload? = nil) -> [IPAddress]? {
        guard case .addresses(let found, alias: nil) = snapshot.lookUp(name, for: client ?? self.client) else {
            return nil
        }
        return found
    }

    @Test func servicesByEveryFormOfTheirName() {
        let own = [ip("10.96.0.1"), ip("fd96::1")]
        for form in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local"] {
            #expect(addresses(form) == own, "\(form)")
        }
        for form in ["web.data", "web.data.svc", "web.data.svc.cluster.local"] {
            #expect(addresses(form) == [ip("10.96.0.2")], "\(form)")
        }
        // A short name is relative to who asks.
        #expect(addresses("web", for: workload("data/other", "10.0.0.2")) == [ip("10.96.0.2")])
        #expect(addresses("web", for: workload("empty/other", "10.0.0.2")) == nil)
    }

    @Test func whatIsNotKnownIsForOthers() {
        for form in [
            "nosuch", "nosuch.default", "nosuch.default.svc.cluster.local", "web.default.svc.example.org",
            "svc.cluster.local", "cluster.local", "default.svc.cluster.local", "a.b.c.d.e.svc.cluster.local", ".", "",
            "web.", ".web", "web..svc", "_http._tcp.web.default.svc.cluster.local", "example.com",
            "web.default.cluster.local", "web.default.svc.cluster.local.default.svc.cluster.local",
        ] {
            #expect(snapshot.lookUp(form, for: client) == nil, "\(form)")
        }
    }

    @Test func headlessServicesAndTheirPods() {
        let zero = [ip("10.0.0.11"), ip("fd00::11")]
        // Healthy and of the client's network only.
        #expect(addresses("db.data.svc.cluster.local") == zero)
        #expect(addresses("db.data") == zero)
        for form in ["db-0.db.data.svc.cluster.local", "db-0.db.data.svc", "db-0.db.data"] {
            #expect(addresses(form) == zero, "\(form)")
        }
        #expect(addresses("db-0.db", for: workload("data/other", "10.0.0.2")) == zero)
        #expect(addresses("db-0.db") == nil, "there is no db in the client's namespace")
        #expect(addresses("db-1.db.data.svc.cluster.local") == nil, "not healthy: Kubernetes may know it")
        #expect(addresses("nosuch.db.data.svc.cluster.local") == nil)
        #expect(addresses("x.web.default.svc.cluster.local") == nil, "only headless services name their pods")
        #expect(addresses("empty") == [], "known, and nobody behind it")
        // A search list made this of pod-0.web: it is not service pod-0 of namespace web.
        #expect(snapshot.lookUp("pod-0.web.default.svc.cluster.local", for: client) == nil)
        #expect(addresses("pod-0.web") == [ip("10.96.0.9")])
    }

    @Test func hostnames() {
        let both = [ip("10.0.0.20"), ip("10.0.0.21")]
        #expect(addresses("ledger.example.com") == both)
        for search in ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"] {
            #expect(
                snapshot.lookUp("ledger.example.com.\(search)", for: client)
                    == .addresses(both, alias: "ledger.example.com"))
        }
        #expect(snapshot.lookUp("ledger.example.com.data.svc.cluster.local", for: client) == nil)
        #expect(addresses("odd") == [ip("10.0.0.23")])
    }

    @Test func theDomainIsTheMeshs() {
        var settings = MeshSettings()
        settings.clusterDomain = "k8s.example"
        let snapshot = MeshSnapshot(
            settings: settings, services: [Service(name: name("default/web"), addresses: [ip("10.96.0.1")])])
        let found = NameKnowledge.addresses([ip("10.96.0.1")], alias: nil)
        #expect(snapshot.lookUp("web.default.svc.k8s.example", for: client) == found)
        #expect(snapshot.lookUp("web.default.svc.cluster.local", for: client) == nil)
    }

    @Test func namesOfTheirOwnKind() {
        let loopback = NameKnowledge.addresses([ip("127.0.0.1"), ip("::1")], alias: nil)
        #expect(snapshot.lookUp("localhost", for: client) == loopback)
        #expect(snapshot.lookUp("a.localhost", for: client) == loopback)
        #expect(snapshot.lookUp("x.invalid", for: client) == .nonexistent)
        #expect(snapshot.lookUp("notinvalid", for: client) == nil)
    }
}
