import MeshDiscovery
import MeshModel
import Testing

/// What is wrong before or beyond one object's fields: YAML itself, the envelope, and objects against each other.
@Suite struct EnvelopeTests {
    private func check(_ yaml: String, _ expected: [String], sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(findings(yaml) == expected, sourceLocation: sourceLocation)
    }

    private static let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n"

    @Test func everyDocumentIsReadWhateverItsNeighboursAre() {
        let yaml = "a: [1\n---\n" + Self.namespace + "---\nkind: Nonsense\napiVersion: v1\n---\nb: c: d\n"
        check(
            yaml,
            [
                "mesh.yaml:2: expected YAML: while parsing a flow sequence: did not find expected ',' or ']'",
                "mesh.yaml:7: Nonsense: kind: unknown kind, expected one of: Mesh, Workload, Namespace, Service, "
                    + "Gateway, HTTPRoute, AuthorizationPolicy, PeerAuthentication",
                "mesh.yaml:10: expected YAML: mapping values are not allowed in this context",
            ])
    }

    @Test(arguments: [
        ("a: 1\na: 2", "1: expected each key once, found again: a"),
        ("[a, b]: c", "1: expected text as the key of a mapping"),
        ("a: *nowhere", "1: alias *nowhere names no anchor above it; quote a value that begins with *"),
        ("a: &x {b: c}\nd: {<<: *x}", "2: not supported yet: merge keys (<<)"),
        ("a: !!binary YWJj", "1: expected no tag, found tag:yaml.org,2002:binary"),
        ("a: \"\\x00", "1: expected YAML: while scanning a quoted scalar: found unexpected end of stream"),
        ("a: \u{E000}", "1: the character U+E000 is not accepted"),
        ("- a", "1: expected an object with apiVersion, kind and metadata, found a list"),
        ("just text", "1: expected an object with apiVersion, kind and metadata, found \"just text\""),
    ])
    func yaml(text: String, expected: String) {
        #expect(findings(text).first?.hasPrefix("mesh.yaml:\(expected)") == true, "\(findings(text))")
    }

    @Test func bytesThatAreNotTextAreRefusedWithTheirLine() {
        let file = ConfigurationFile(name: "f", bytes: Array("a: b\nc: ".utf8) + [0xff, 0x0a])
        let reading = ConfigurationReading(parsing: [file], path: "f")
        #expect(reading.errors.map(\.description) == ["f:2: expected UTF-8 text, found other bytes"])
    }

    @Test func anchorsWorkAndBombsDoNot() {
        let anchors = """
            apiVersion: security.istio.io/v1
            kind: AuthorizationPolicy
            metadata: {name: p, labels: &labels {app: "*x"}, annotations: {note: "2 *stars here", more: a*b}}
            spec:
              rules:
              - from: [{source: &who {namespaces: [a]}}]
              - from: [{source: *who}]
            """
        let rules = objects(anchors.replacing("\"*x\"", with: "x")).authorizationPolicies[0].rules
        #expect(rules.count == 2 && rules[0] == rules[1])
        #expect(findings(anchors).count == 1)

        var bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        for level in 1...12 {
            let aliases = Array(repeating: "*a\(level - 1)", count: 10).joined(separator: ", ")
            bomb += "a\(level): &a\(level) [\(aliases)]\n"
        }
        #expect(findings(bomb) == ["mesh.yaml:1: expected at most 2000000 values, aliases written out"])
        #expect(findings(bomb + "? *a12\n: y\n") == ["mesh.yaml:14: expected text as the key of a mapping"])
        #expect(findings(bomb + "? [*a12, *a12]\n: y\n") == ["mesh.yaml:14: expected text as the key of a mapping"])
        #expect(findings(bomb + "z: {*a12}\n") == ["mesh.yaml:14: expected text as the key of a mapping"])
    }

    @Test func nestingIsBounded() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(findings(deep).first?.contains("Maximum nesting level") == true)
        let blocks = String(repeating: "- ", count: 100_000) + "a"
        #expect(findings(blocks).first?.contains("Maximum nesting level") == true)
        #expect(findings(String(repeating: "[", count: 990) + String(repeating: "]", count: 990)).count == 1)
    }

    @Test(arguments: [
        ("apiVersion: v1\nmetadata: {name: a}", "1: kind: missing, expected the kind of the object"),
        (
            "kind: Namespace\nmetadata: {name: a}",
            "1: Namespace a: apiVersion: missing, expected the apiVersion of the kind"
        ),
        ("apiVersion: v1\nkind: GRPCRoute", "2: GRPCRoute: kind: not supported yet: GRPCRoute"),
        (
            "apiVersion: v1\nkind: RequestAuthentication",
            "2: RequestAuthentication: kind: not supported yet: RequestAuthentication"
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: Namespace\nmetadata: {name: a}",
            "1: Namespace a: apiVersion: expected v1, found \"gateway.networking.k8s.io/v1alpha2\""
        ),
        (
            "apiVersion: v1\nkind: Namespace",
            "1: Namespace: metadata: missing, expected a mapping with the object's name"
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {}",
            "3: Namespace: metadata.name: missing, expected the object's name"
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}",
            "3: Namespace a: metadata.namespace: expected no namespace: a Namespace is not in one"
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, nmae: b}",
            "3: Namespace a: metadata.nmae: unknown field, expected one of: name, namespace, labels, annotations"
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {istio.io/dataplane-mode: sidecar}}",
            "3: Namespace a: metadata.labels.istio.io/dataplane-mode: expected ambient or none, found \"sidecar\""
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nextra: 1",
            "4: Namespace a: extra: unknown field, expected one of: kind, apiVersion, metadata, spec"
        ),
    ])
    func envelope(text: String, expected: String) {
        #expect(findings(text) == ["mesh.yaml:\(expected)"])
    }

    @Test(arguments: ["Shop", "-a", "a-", "a_b", "a..b", String(repeating: "a", count: 254)])
    func namesAreOfRFC1123(name: String) {
        let yaml =
            "apiVersion: culvert.dev/v1alpha1\nkind: Workload\nmetadata: {name: \(name)}\n"
            + "spec: {addresses: [10.0.0.1], protocol: TLS}"
        #expect(findings(yaml).first?.contains("metadata.name: expected a DNS name (RFC 1123)") == true)
    }

    @Test func twoOfOneNameOrAddressOrNamespaceAreRefused() {
        func entry(_ name: String, _ spec: String) -> String {
            "apiVersion: culvert.dev/v1alpha1\nkind: Workload\nmetadata: {name: \(name)}\nspec: {protocol: TLS, \(spec)}\n---\n"
        }
        let service =
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: 10.0.0.2, ports: [{port: 80}]}\n"
        check(
            entry("a", "addresses: [10.0.0.1], node: n, netns: /x") + entry("a", "addresses: [10.0.0.9]")
                + entry("b", "addresses: [10.0.0.2, \"::ffff:10.0.0.1\"], node: n, netns: /x")
                + entry("c", "addresses: [10.0.0.3], node: m, netns: /x") + service,
            [
                "mesh.yaml:6: Workload default/a: metadata.name: already defined at mesh.yaml:1",
                "mesh.yaml:14: Workload default/b: spec.addresses[1]: expected an address of its own, found that of "
                    + "Workload default/a: 10.0.0.1",
                "mesh.yaml:14: Workload default/b: spec.netns: expected a network namespace of its own, found that of "
                    + "Workload default/a",
                "mesh.yaml:24: Service default/s: spec.clusterIP: expected an address of its own, found that of "
                    + "Workload default/b: 10.0.0.2",
            ])
    }

    @Test func oneMeshOnly() {
        let mesh = "apiVersion: culvert.dev/v1alpha1\nkind: Mesh\nmetadata: {name: NAME}\n---\n"
        check(
            mesh.replacing("NAME", with: "a") + mesh.replacing("NAME", with: "b"),
            ["mesh.yaml:5: Mesh b: expected one Mesh, the first one is at mesh.yaml:1"])
    }

    @Test func whatIsAbsentIsAWarning() {
        let yaml = """
            apiVersion: v1
            kind: Namespace
            metadata: {name: default, labels: {istio.io/use-waypoint: gone}}
            ---
            apiVersion: gateway.networking.k8s.io/v1
            kind: Gateway
            metadata: {name: way}
            spec: {gatewayClassName: culvert-waypoint}
            ---
            apiVersion: v1
            kind: Service
            metadata: {name: s, labels: {istio.io/use-waypoint: way}}
            spec: {ports: [{name: tcp, port: 80}]}
            ---
            apiVersion: gateway.networking.k8s.io/v1
            kind: HTTPRoute
            metadata: {name: r}
            spec:
              parentRefs: [{kind: Service, group: "", name: s}]
              rules: [{backendRefs: [{name: t, port: 80}, {name: s, port: 81}]}]
            ---
            apiVersion: security.istio.io/v1
            kind: AuthorizationPolicy
            metadata: {name: p}
            spec: {selector: {matchLabels: {app: none}}}
            """
        check(
            yaml,
            [
                "mesh.yaml:3: warning: Namespace default: metadata.labels.istio.io/use-waypoint: no Gateway default/gone: "
                    + "traffic will be refused (waypoint_unavailable)",
                "mesh.yaml:5: warning: Gateway default/way: no Workload is labelled "
                    + "gateway.networking.k8s.io/gateway-name: way, so its traffic will be refused (waypoint_unavailable)",
                "mesh.yaml:19: warning: HTTPRoute default/r: spec.parentRefs[0]: has no effect: no such port of Service "
                    + "default/s has appProtocol http",
                "mesh.yaml:20: warning: HTTPRoute default/r: spec.rules[0].backendRefs[0]: no Service default/t: "
                    + "requests sent to it are answered with 500",
                "mesh.yaml:20: warning: HTTPRoute default/r: spec.rules[0].backendRefs[1]: Service default/s has no port "
                    + "81: requests sent to it are answered with 500",
                "mesh.yaml:25: warning: AuthorizationPolicy default/p: spec.selector: selects no Workload",
            ])
    }

    @Test func http2BehindAWaypointIsRefused() {
        let yaml = """
            apiVersion: v1
            kind: Service
            metadata: {name: s, labels: {istio.io/use-waypoint: way}}
            spec: {ports: [{name: grpc, port: 80}]}
            """
        let errors = reading(yaml).errors.map(\.description)
        let message = "not supported yet: HTTP/2, gRPC and WebSocket behind a waypoint"
        #expect(errors == ["mesh.yaml:4: Service default/s: spec.ports[0].name: \(message)"])
        #expect(reading(yaml.replacing("way", with: "none")).isValid)
    }

    @Test func manyErrorsAreBounded() {
        let yaml = String(repeating: "kind: X\napiVersion: v1\n---\n", count: 1_500)
        let errors = reading(yaml).errors
        #expect(errors.count == 1_001)
        #expect(errors.last?.description == "mesh.yaml: 500 more errors are not shown")
    }

    @Test func messagesAreBoundedAndPrintable() throws {
        let long = "apiVersion: v1\nkind: Namespace\nmetadata: {name: \(String(repeating: "A", count: 100_000))}\n"
        #expect(try #require(findings(long).first).utf8.count < 1_000)
        let key = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, \"\\e[2J\\n\": 1}\n"
        #expect(findings(key).first?.contains(#"metadata.\u{1B}[2J\n: unknown field"#) == true)
        let names = Array(repeating: "{kind: Service, name: s}", count: 33).joined(separator: ", ")
        let route =
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n"
            + "spec: {parentRefs: [\(names)]}\n"
        #expect(
            findings(route) == [
                "mesh.yaml:4: HTTPRoute default/r: spec.parentRefs: expected at most 32 entries, found 33"
            ])
    }
}
