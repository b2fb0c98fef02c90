import MeshDiscovery
import MeshModel
import Testing

@Suite struct DecodeTests {
    @Test func everyKindIsRead() throws {
        let reading = reading(Samples.everything)
        #expect(reading.errors.map(\.description) == [])
        #expect(reading.warnings.map(\.description) == [])
        #expect(
            reading.counts == [
                "Mesh": 1, "Namespace": 1, "Workload": 3, "Service": 1, "Gateway": 1, "HTTPRoute": 1,
                "AuthorizationPolicy": 3, "PeerAuthentication": 1,
            ])
    }

    @Test func mesh() {
        var settings = MeshSettings()
        settings.trustDomain = "example.org"
        settings.rootNamespace = "mesh-system"
        settings.clusterDomain = "k8s.example.org"
        settings.dnsCapture = false
        settings.mutualTLS = .strict
        settings.sameNode = .tunnel
        settings.acceleration = .sockmap
        settings.authority = CertificateAuthorityFiles(certificate: "ca.pem", key: "ca.key")
        settings.limits.drainNanoseconds = 90_000_000_000
        settings.limits.headerListBytes = 32 * 1024
        settings.limits.streamsPerSession = 7
        settings.limits.pingIntervalNanoseconds = 500_000_000
        #expect(objects(Samples.everything).settings == settings)
    }

    @Test func noMeshMeansTheDefaults() {
        #expect(objects("").settings == MeshSettings())
        #expect(objects("").settings.sameNode == .direct)
        #expect(objects("").settings.dnsCapture)
    }

    @Test func workload() throws {
        let workloads = objects(Samples.everything).workloads
        let front = Workload(
            name: ObjectName(namespace: "shop", name: "front-1"), labels: ["app": "front"],
            annotations: [Annotations.dnsCapture: "true", "example.org/note": "any"],
            addresses: [try #require(IPAddress("10.1.0.1")), try #require(IPAddress("fd00::1"))], node: "node-1",
            trustDomain: "example.org", serviceAccount: "front", transport: .tls, netns: "/var/run/netns/front",
            namedPorts: ["web": 8080], hostname: "front-1", network: "net-1",
            locality: Locality(region: "eu", zone: "eu-1", subzone: "r7"), healthy: true,
            acceleration: .off)
        #expect(workloads[0] == front)
        let snapshot = MeshSnapshot(settings: objects(Samples.everything).settings)
        #expect(snapshot.capturesDNS(workloads[0]) && !snapshot.capturesDNS(workloads[2]))
        #expect(workloads[1].transport == .tcp && workloads[1].acceleration == nil)
        #expect(workloads[1].serviceAccount == "default")
        #expect(!workloads[1].healthy)
        #expect(workloads[2].waypointOf == ObjectName(namespace: "shop", name: "way"))
    }

    @Test func service() throws {
        let service = try #require(objects(Samples.everything).services.first)
        #expect(service.addresses == [IPAddress("10.96.0.1"), IPAddress("fd00:96::1")])
        #expect(service.selector == ["app": "front"])
        #expect(
            service.ports == [
                ServicePort(name: "http", port: 80, target: .name("web"), appProtocol: .http1),
                ServicePort(name: "raw", port: 9000, target: .number(9001)),
                ServicePort(name: "plain", port: 81, appProtocol: .http1),
            ])
    }

    @Test(arguments: [
        ("name: http", AppProtocol.http1), ("name: http-web", .http1), ("name: https", .tcp), ("name: httpx", .tcp),
        ("name: grpc-api", .tcp), ("name: x, appProtocol: http", .http1), ("name: http, appProtocol: https", .tcp),
        ("name: http, appProtocol: kubernetes.io/h2c", .tcp), ("name: web", .tcp),
    ])
    func appProtocol(port: String, expected: AppProtocol) {
        let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80, \(port)}]}"
        #expect(objects(yaml).services.first?.ports.first?.appProtocol == expected)
    }

    @Test func headlessServicesHaveNoAddress() {
        let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None, selector: {a: b}}"
        #expect(
            objects(yaml).services == [Service(name: ObjectName(namespace: "default", name: "s"), selector: ["a": "b"])]
        )
    }

    @Test func httpRoute() throws {
        let route = try #require(objects(Samples.everything).routes.first)
        let front = ObjectName(namespace: "shop", name: "front")
        #expect(route.parents == [HTTPRoute.Parent(service: front, port: 80)])
        #expect(route.hostnames == ["front.example.org", "*.example.org"])
        let rule = HTTPRoute.Rule(
            matches: [
                HTTPRoute.Match(
                    path: .exact("/api"), headers: [HTTPRoute.HeaderMatch(name: "x-version", value: "2")], method: "GET"
                ),
                HTTPRoute.Match(path: .prefix("/v2")),
            ],
            requestHeaders: [
                HTTPRoute.HeaderModifier(
                    set: [HTTPRoute.HeaderModifier.Field(name: "x-set", value: "a")],
                    add: [HTTPRoute.HeaderModifier.Field(name: "x-add", value: "b")], remove: ["x-gone"])
            ],
            backends: [
                HTTPRoute.Backend(service: front, port: 80, weight: 70),
                HTTPRoute.Backend(service: front, port: 81, weight: 30),
            ])
        #expect(route.rules == [rule, HTTPRoute.Rule(backends: [HTTPRoute.Backend(service: front, port: 80)])])
    }

    @Test func authorizationPolicy() throws {
        let policies = objects(Samples.everything).authorizationPolicies
        let callers = policies[0]
        #expect(callers.scope == .selector(["app": "front"]))
        #expect(callers.action == .allow)
        let source = callers.rules[0].from[0]
        #expect(
            source.principals == [
                .exact("example.org/ns/shop/sa/front"), .suffix("/sa/way"), .prefix("other.org/"), .present,
            ])
        #expect(source.notPrincipals == [.exact("example.org/ns/shop/sa/bad")])
        #expect(source.namespaces == [.exact("shop"), .prefix("team-")])
        #expect(source.notNamespaces == [.exact("dark")])
        #expect(source.ipBlocks == [CIDR("10.0.0.0/8"), CIDR("192.0.2.1/32")])
        #expect(source.notIPBlocks == [CIDR("fd00::/8")])
        let accounts = callers.rules[0].from[1]
        #expect(accounts.principals == [.suffix("/ns/shop/sa/front"), .suffix("/ns/shop/sa/way")])
        #expect(accounts.notPrincipals == [.suffix("/ns/x/sa/y")])
        #expect(callers.rules[0].to[0].ports == [80, 8080])
        #expect(callers.rules[0].to[0].notPorts == [22])
        #expect(policies[1].scope == .services([ObjectName(namespace: "shop", name: "front")]))
        #expect(policies[1].action == .deny)
        #expect(policies[1].rules == [AuthorizationPolicy.Rule()])
        #expect(policies[2].scope == .mesh)
        #expect(policies[2].rules == [])
    }

    @Test func peerAuthentication() throws {
        let policy = try #require(objects(Samples.everything).peerAuthentications.first)
        #expect(policy.mode == nil)
        #expect(policy.portModes == [8080: .permissive, 9001: .strict])
        #expect(policy.scope == .selector(["app": "front"]))
    }

    @Test func scopeFollowsIstio() {
        func scope(_ namespace: String, _ spec: String) -> PolicyScope? {
            let yaml = """
                apiVersion: security.istio.io/v1
                kind: PeerAuthentication
                metadata: {name: p, namespace: \(namespace)}
                spec: \(spec)
                """
            return objects(yaml).peerAuthentications.first?.scope
        }
        #expect(scope("istio-system", "{}") == .mesh)
        #expect(scope("istio-system", "{selector: {matchLabels: {}}}") == .mesh)
        #expect(scope("istio-system", "{selector: {matchLabels: {a: b}}}") == .selector(["a": "b"]))
        #expect(scope("shop", "{}") == .namespace)
    }

    @Test func listsFromKubectlAreReadLikeTheirItems() {
        let yaml = """
            apiVersion: v1
            kind: List
            metadata: {resourceVersion: ""}
            items:
            - {apiVersion: v1, kind: Namespace, metadata: {name: a}}
            - {apiVersion: v1, kind: Namespace, metadata: {name: b}}
            """
        #expect(objects(yaml).namespaces.map(\.name) == ["a", "b"])
    }

    @Test func theSnapshotHoldsTheObjects() {
        let snapshot = objects(Samples.everything).makeSnapshot(generation: 7)
        let front = ObjectName(namespace: "shop", name: "front")
        #expect(snapshot.generation == 7)
        #expect(snapshot.waypoint(ofService: front) == ObjectName(namespace: "shop", name: "way"))
        #expect(snapshot.localWorkloads(node: "node-1").map(\.name.name) == ["front-1"])
    }
}
