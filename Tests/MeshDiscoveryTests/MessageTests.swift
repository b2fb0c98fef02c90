import MeshDiscovery
import Testing

/// The exact words users read. `spec` cases put one wrong thing into an otherwise good object.
@Suite struct MessageTests {
    private func check(_ yaml: String, _ expected: [String], sourceLocation: SourceLocation = #_sourceLocation) {
        #expect(findings(yaml) == expected, sourceLocation: sourceLocation)
    }

    @Test(arguments: [
        ("mtls: strict", "spec.mtls: expected PERMISSIVE or STRICT, found \"strict\""),
        ("mtls: DISABLE", "spec.mtls: expected PERMISSIVE or STRICT, found \"DISABLE\""),
        ("dnsCapture: \"true\"", "spec.dnsCapture: expected true or false, found \"true\""),
        (
            "clusterDomain: Cluster",
            "spec.clusterDomain: expected a DNS name (RFC 1123): at most 253 of a-z, 0-9, - and ., with a letter or digit "
                + "at both ends of each part, found \"Cluster\""
        ),
        ("sameNode: both", "spec.sameNode: expected direct, proxy or tunnel, found \"both\""),
        ("acceleration: fast", "spec.acceleration: expected \"off\" or sockmap, found \"fast\""),
        (
            "acceleration: true",
            "spec.acceleration: expected \"off\" or sockmap, found the boolean true (text needs quotes here)"
        ),
        (
            "trustDomain: Example",
            "spec.trustDomain: expected a trust domain: a-z, 0-9, ., - and _, at most 255, found \"Example\""
        ),
        (
            "trustDomain: [a]",
            "spec.trustDomain: expected a trust domain: a-z, 0-9, ., - and _, at most 255, found a list"
        ),
        ("ca: {file: {certificate: a}}", "spec.ca.file.key: missing, expected the path of a PEM file"),
        ("ca: {vault: {}}", "spec.ca.file: missing, expected a mapping with certificate and key"),
        (
            "limits: {drain: 5 minutes}",
            "spec.limits.drain: expected a time from 1ms to 24h, like 10s or 1m30s, found \"5 minutes\""
        ),
        (
            "limits: {headerListBytes: 12}",
            "spec.limits.headerListBytes: expected bytes from 1024 to 1048576, like 65536 or 64Ki, found the number 12"
        ),
        (
            "limits: {streamsPerSession: 0}",
            "spec.limits.streamsPerSession: expected a whole number from 1 to 1000000, found the number 0"
        ),
    ])
    func mesh(spec: String, expected: String) {
        let yaml = "apiVersion: culvert.dev/v1alpha1\nkind: Mesh\nmetadata: {name: m}\nspec:\n  \(spec)\n"
        #expect(findings(yaml).first == "mesh.yaml:5: Mesh m: \(expected)")
    }

    @Test(arguments: [
        ("addresses: [10.0.0.300]", "spec.addresses[0]: expected an IPv4 or IPv6 address, found \"10.0.0.300\""),
        (
            "addresses: 10.0.0.1",
            "spec.addresses: expected a list of the IP addresses of the workload, found \"10.0.0.1\""
        ),
        (
            "addresses: []",
            "spec.addresses: expected at least one entry: the IP addresses of the workload, found a list without entries"
        ),
        (
            "addresses: [127.0.0.1]",
            "spec.addresses[0]: expected an address of one host, found 127.0.0.1 (unspecified, multicast or loopback)"
        ),
        ("addresses: [10.0.0.1, 10.0.0.1]", "spec.addresses[1]: expected each address once, found 10.0.0.1 again"),
        (
            "addresses: [10.0.0.1], ports: {http: 70000}",
            "spec.ports.http: expected a port from 1 to 65535, found the number 70000"
        ),
        (
            "addresses: [10.0.0.1], ports: {http: \"80\"}",
            "spec.ports.http: expected a port from 1 to 65535, found \"80\""
        ),
        (
            "addresses: [10.0.0.1], netns: ns/a, node: n",
            "spec.netns: expected an absolute path like /var/run/netns/NAME, found \"ns/a\""
        ),
        ("addresses: [10.0.0.1], netns: /ns/a", "spec.node: missing, expected the node that captures this netns"),
        ("addresses: [10.0.0.1], healthy: 1", "spec.healthy: expected true or false, found the number 1"),
        (
            "addresses: [10.0.0.1], acceleration: kernel",
            "spec.acceleration: expected \"off\" or sockmap, found \"kernel\""
        ),
        (
            "addresses: [10.0.0.1], adress: x",
            "spec.adress: unknown field, expected one of: addresses, netns, node, serviceAccount, protocol, ports, "
                + "hostname, network, locality, healthy, acceleration"
        ),
    ])
    func workload(spec: String, expected: String) {
        let yaml = """
            apiVersion: culvert.dev/v1alpha1
            kind: Workload
            metadata: {name: w, namespace: shop}
            spec: {protocol: TLS, \(spec)}
            """
        check(yaml, ["mesh.yaml:4: Workload shop/w: \(expected)"])
    }

    @Test func annotations() {
        func workload(_ value: String) -> String {
            """
            apiVersion: culvert.dev/v1alpha1
            kind: Workload
            metadata: {name: w, namespace: shop, annotations: {ambient.istio.io/dns-capture: \(value)}}
            spec: {protocol: TLS, addresses: [10.0.0.1]}
            """
        }
        let field = "mesh.yaml:3: Workload shop/w: metadata.annotations.ambient.istio.io/dns-capture"
        check(workload("\"yes\""), ["\(field): expected \"true\" or \"false\", found \"yes\""])
        check(workload("true"), ["\(field): expected text, found the boolean true (text needs quotes here)"])
    }

    @Test(arguments: ["HBONE", "tls", "mTLS"]) func protocolIsTLSOrTCP(value: String) {
        let yaml = """
            apiVersion: culvert.dev/v1alpha1
            kind: Workload
            metadata: {name: w}
            spec: {addresses: [10.0.0.1], protocol: \(value)}
            """
        let message = "spec.protocol: expected TLS (mutual TLS) or TCP (not meshed), found \"\(value)\""
        check(yaml, ["mesh.yaml:4: Workload default/w: \(message)"])
    }

    @Test(arguments: [
        ("type: ExternalName", "spec.type: not supported yet: Service type ExternalName"),
        ("clusterIP: 10.0.0", "spec.clusterIP: expected an IPv4 or IPv6 address, found \"10.0.0\""),
        ("sessionAffinity: ClientIP", "spec.sessionAffinity: not supported yet: sessionAffinity other than None"),
        ("internalTrafficPolicy: Local", "spec.internalTrafficPolicy: not supported yet: internalTrafficPolicy: Local"),
        ("trafficDistribution: PreferClose", "spec.trafficDistribution: not supported yet: trafficDistribution"),
        ("ports: [{port: 0}]", "spec.ports[0].port: expected a port from 1 to 65535, found the number 0"),
        ("ports: [{port: 80, protocol: tcp}]", "spec.ports[0].protocol: expected TCP, UDP or SCTP, found \"tcp\""),
        (
            "ports: [{port: 80}, {port: 81, name: b}]",
            "spec.ports[0].name: missing, expected a name, as there are several ports"
        ),
        (
            "ports: [{port: 80, name: a}, {port: 80, name: b}]",
            "spec.ports[1]: expected each port once, found 80/TCP again"
        ),
        ("clusterIP: 10.0.0.1", "spec.ports: missing, expected a list of the service's ports"),
        ("selector: {a: 1}", "spec.selector.a: expected text, found the number 1 (text needs quotes here)"),
    ])
    func service(spec: String, expected: String) {
        let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {\(spec)}"
        check(yaml, ["mesh.yaml:4: Service default/s: \(expected)"])
    }

    @Test func portsThatAreNotTCPAreAWarning() {
        let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 53, protocol: UDP}]}"
        let message = "has no effect: UDP is not captured, it passes by the mesh as it is"
        check(yaml, ["mesh.yaml:4: warning: Service default/s: spec.ports[0]: \(message)"])
    }

    @Test(arguments: [
        ("gatewayClassName: nginx", "spec.gatewayClassName: expected culvert-waypoint, found \"nginx\""),
        ("{}", "spec.gatewayClassName: missing, expected culvert-waypoint"),
        (
            "gatewayClassName: culvert-waypoint, listeners: [{name: a, port: 80, protocol: HTTP}]",
            "spec.listeners[0].port: expected 15008, where waypoints listen, found the number 80"
        ),
        (
            "gatewayClassName: culvert-waypoint, addresses: [{value: 10.0.0.1}]",
            "spec.addresses: not supported yet: addresses; a waypoint's addresses are those of its Workloads"
        ),
    ])
    func gateway(spec: String, expected: String) {
        let body = spec == "{}" ? spec : "{\(spec)}"
        let yaml = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec: \(body)"
        #expect(findings(yaml).first == "mesh.yaml:4: Gateway default/g: \(expected)")
    }

    @Test(arguments: [
        ("timeouts: {request: 1s}", "timeouts: not supported yet: timeouts"),
        ("retry: {attempts: 2}", "retry: not supported yet: retry"),
        ("matches: [{queryParams: []}]", "matches[0].queryParams: not supported yet: queryParams"),
        (
            "matches: [{path: {type: RegularExpression, value: /a}}]",
            "matches[0].path.type: not supported yet: path match RegularExpression; expected Exact or PathPrefix"
        ),
        (
            "matches: [{headers: [{type: RegularExpression, name: a, value: b}]}]",
            "matches[0].headers[0].type: not supported yet: header match RegularExpression; expected Exact"
        ),
        (
            "matches: [{path: {value: api}}]",
            "matches[0].path.value: expected an absolute path without //, /./, /../, # or escaped slashes, found \"api\""
        ),
        (
            "matches: [{method: get}]",
            "matches[0].method: expected one of: GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, "
                + "found \"get\""
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {}}]",
            "filters[0].type: not supported yet: filter URLRewrite; expected RequestHeaderModifier"
        ),
        ("filters: [{type: Magic}]", "filters[0].type: expected RequestHeaderModifier, found \"Magic\""),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: \"a b\", value: c}]}}]",
            "filters[0].requestHeaderModifier.set[0].name: expected a header name (RFC 9110), found \"a b\""
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: \"b\\r\\nc: d\"}]}}]",
            "filters[0].requestHeaderModifier.set[0].value: expected a header value (RFC 9110), "
                + "found \"b\\r\\nc: d\""
        ),
        (
            "backendRefs: [{name: b, port: 80, weight: -1}]",
            "backendRefs[0].weight: expected a weight from 0 to 1000000, found the number -1"
        ),
        (
            "backendRefs: [{name: b, namespace: other, port: 80}]",
            "backendRefs[0].namespace: not supported yet: a backend of another namespace; expected default"
        ),
        ("backendRefs: [{name: b}]", "backendRefs[0].port: missing, expected a port of the Service"),
    ])
    func httpRouteRule(rule: String, expected: String) {
        let yaml = """
            apiVersion: gateway.networking.k8s.io/v1
            kind: HTTPRoute
            metadata: {name: r}
            spec:
              parentRefs: [{group: "", kind: Service, name: s}]
              rules: [{\(rule)}]
            """
        check(yaml, ["mesh.yaml:6: HTTPRoute default/r: spec.rules[0].\(expected)"])
    }

    @Test(arguments: [
        (
            "[{group: gateway.networking.k8s.io, kind: Gateway, name: g}]",
            "spec.parentRefs[0].kind: not supported yet: a parent of kind Gateway; expected Service"
        ),
        ("[{name: g}]", "spec.parentRefs[0].kind: missing, expected Service"),
        (
            "[{kind: Service, name: g, namespace: b}]",
            "spec.parentRefs[0].namespace: not supported yet: a parent of another namespace; expected default"
        ),
    ])
    func httpRouteParent(parents: String, expected: String) {
        let yaml = """
            apiVersion: gateway.networking.k8s.io/v1
            kind: HTTPRoute
            metadata: {name: r}
            spec: {parentRefs: \(parents)}
            """
        check(yaml, ["mesh.yaml:4: HTTPRoute default/r: \(expected)"])
    }

    @Test(arguments: [
        ("action: AUDIT", "action: not supported yet: action AUDIT; expected ALLOW or DENY"),
        ("action: allow", "action: expected ALLOW or DENY, found \"allow\""),
        ("rules: [{when: [{key: a}]}]", "rules[0].when: not supported yet: when"),
        (
            "rules: [{to: [{operation: {methods: [GET]}}]}]",
            "rules[0].to[0].operation.methods: not supported yet: methods"
        ),
        (
            "rules: [{from: [{source: {requestPrincipals: [a]}}]}]",
            "rules[0].from[0].source.requestPrincipals: not supported yet: requestPrincipals"
        ),
        (
            "rules: [{from: [{source: {}}]}]",
            "rules[0].from[0].source: expected at least one of: principals, namespaces, serviceAccounts, ipBlocks or "
                + "their not-forms"
        ),
        (
            "rules: [{from: [{source: {principals: []}}]}]",
            "rules[0].from[0].source.principals: expected at least one entry: a principal, found a list without entries"
        ),
        (
            "rules: [{from: [{source: {principals: [shop]}}]}]",
            "rules[0].from[0].source.principals[0]: expected TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT, or a part of it with "
                + "* at one end, found \"shop\""
        ),
        (
            "rules: [{from: [{source: {principals: [\"spiffe://a/ns/b/sa/c\"]}}]}]",
            "rules[0].from[0].source.principals[0]: expected a principal without spiffe://, "
                + "found \"spiffe://a/ns/b/sa/c\""
        ),
        (
            "rules: [{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}]",
            "rules[0].from[0].source.ipBlocks[0]: expected an IP address or a CIDR block like 10.0.0.0/8, "
                + "found \"10.0.0.0/33\""
        ),
        (
            "rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]",
            "rules[0].from[0].source.serviceAccounts: expected serviceAccounts without principals and namespaces beside "
                + "it (as in Istio)"
        ),
        (
            "rules: [{to: [{operation: {ports: [http]}}]}]",
            "rules[0].to[0].operation.ports[0]: expected a port from 1 to 65535, found \"http\""
        ),
        (
            "targetRefs: [{kind: Service, name: a}, {kind: Gateway, group: gateway.networking.k8s.io, name: b}]",
            "targetRefs[0]: not supported yet: Services and Gateways in the targetRefs of one policy; write two policies"
        ),
    ])
    func authorizationPolicy(spec: String, expected: String) {
        let yaml = """
            apiVersion: security.istio.io/v1
            kind: AuthorizationPolicy
            metadata: {name: p}
            spec: {\(spec)}
            """
        check(yaml, ["mesh.yaml:4: AuthorizationPolicy default/p: spec.\(expected)"])
    }

    @Test(arguments: [
        (
            "mtls: {mode: DISABLE}",
            "mtls.mode: not supported yet: mode DISABLE; a workload leaves the mesh with protocol: TCP"
        ),
        ("portLevelMtls: {80: {mode: STRICT}}", "portLevelMtls: expected a selector beside portLevelMtls"),
        (
            "selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}",
            "portLevelMtls.http: expected a port from 1 to 65535 as the key, found \"http\""
        ),
    ])
    func peerAuthentication(spec: String, expected: String) {
        let yaml = """
            apiVersion: security.istio.io/v1
            kind: PeerAuthentication
            metadata: {name: p}
            spec: {\(spec)}
            """
        check(yaml, ["mesh.yaml:4: PeerAuthentication default/p: spec.\(expected)"])
    }
}
