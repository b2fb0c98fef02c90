import MeshDiscovery
import MeshModel
import Testing

/// The annotations that keep traffic out of capture, as Istio reads them.
@Suite struct ScopeTests {
    private static let traffic = "traffic.sidecar.istio.io/"

    private func yaml(_ annotations: String, spec: String = "netns: /ns/w, node: n, protocol: TLS") -> String {
        """
        apiVersion: culvert.dev/v1alpha1
        kind: Workload
        metadata:
          name: w
          annotations:
            \(annotations.split(separator: "\n").joined(separator: "\n    "))
        spec: {addresses: [10.0.0.1], \(spec)}
        """
    }

    private func scope(_ annotations: String) throws -> CaptureScope {
        let reading = reading(yaml(annotations))
        #expect(reading.errors.map(\.description) == [] && reading.warnings.map(\.description) == [])
        return try #require(reading.objects.workloads.first).scope
    }

    @Test func listsAreReadAsIstioReadsThem() throws {
        let blocks = ["10.0.0.0/8", "192.0.2.1/32", "fd00::/8"].map { CIDR($0)! }
        #expect(
            try scope("\(Self.traffic)excludeOutboundIPRanges: 10.0.0.0/8, 192.0.2.1/32,fd00::/8")
                == CaptureScope(excludedOutbound: blocks))
        #expect(
            try scope("\(Self.traffic)includeOutboundIPRanges: \"\"\n\(Self.traffic)includeOutboundPorts: \"80, 443\"")
                == CaptureScope(includedOutbound: [], includedOutboundPorts: [80, 443]))
        #expect(
            try scope("\(Self.traffic)includeOutboundIPRanges: 10.0.0.0/8\n\(Self.traffic)excludeOutboundPorts: \"22\"")
                == CaptureScope(includedOutbound: [blocks[0]], excludedOutboundPorts: [22]))
        #expect(try scope("\(Self.traffic)includeOutboundIPRanges: \"*\"") == CaptureScope())
        #expect(
            try scope("\(Self.traffic)includeInboundPorts: \"*\"\n\(Self.traffic)excludeInboundPorts: \"9090\"")
                == CaptureScope(excludedInboundPorts: [9090]))
        #expect(
            try scope("\(Self.traffic)includeInboundPorts: \"80,8443\"")
                == CaptureScope(includedInboundPorts: [80, 8443]))
        #expect(try scope("\(Self.traffic)includeInboundPorts: \"\"") == CaptureScope(includedInboundPorts: []))
        #expect(
            try scope("ambient.istio.io/bypass-inbound-capture: \"true\"") == CaptureScope(includedInboundPorts: []))
        #expect(try scope("ambient.istio.io/bypass-inbound-capture: \"false\"") == CaptureScope())
        #expect(try scope("example.com/anything: goes") == CaptureScope())
    }

    @Test(arguments: [
        (
            "excludeOutboundIPRanges: 10.0.0.0/33",
            "expected CIDR blocks with commas between them, like 10.0.0.0/8,fd00::/8, found \"10.0.0.0/33\" in it"
        ),
        (
            "excludeOutboundIPRanges: \"*\"",
            "expected CIDR blocks with commas between them, like 10.0.0.0/8,fd00::/8, found \"*\" in it"
        ),
        (
            "includeOutboundIPRanges: 10.0.0.0/8,,fd00::/8",
            "expected * or CIDR blocks with commas between them, like 10.0.0.0/8,fd00::/8, found \"\" in it"
        ),
        (
            "excludeOutboundPorts: http",
            "expected ports with commas between them, like 80,8443, found \"http\" in it"
        ),
        (
            "excludeOutboundPorts: 3306",
            "expected text, found the number 3306 (text needs quotes here)"
        ),
        (
            "includeOutboundPorts: \"80;81\"",
            "expected ports with commas between them, like 80,8443, found \"80;81\" in it"
        ),
        (
            "includeInboundPorts: \"0\"",
            "expected * or ports with commas between them, like 80,8443, found \"0\" in it"
        ),
        (
            "excludeInboundPorts: \"65536\"",
            "expected ports with commas between them, like 80,8443, found \"65536\" in it"
        ),
        ("excludeInterfaces: eth1", "not supported yet: traffic.sidecar.istio.io/excludeInterfaces"),
        (
            "excludePorts: \"80\"",
            "unknown annotation, expected traffic.sidecar.istio.io/ and one of: includeOutboundIPRanges, "
                + "excludeOutboundIPRanges, includeOutboundPorts, excludeOutboundPorts, includeInboundPorts, "
                + "excludeInboundPorts"
        ),
    ])
    func wrongValuesAreRefusedWithTheirPlace(annotation: String, expected: String) {
        let key = annotation.prefix { $0 != ":" }
        #expect(
            findings(yaml(Self.traffic + annotation)) == [
                "mesh.yaml:6: Workload default/w: metadata.annotations.\(Self.traffic)\(key): \(expected)"
            ])
    }

    @Test func bypassIsTrueOrFalse() {
        #expect(
            findings(yaml("ambient.istio.io/bypass-inbound-capture: \"yes\"")) == [
                "mesh.yaml:6: Workload default/w: metadata.annotations.ambient.istio.io/bypass-inbound-capture: "
                    + "expected \"true\" or \"false\", found \"yes\""
            ])
    }

    @Test func whatHasNoEffectIsSaid() {
        let place = "mesh.yaml:6: warning: Workload default/w: metadata.annotations"
        #expect(
            findings(yaml("\(Self.traffic)includeOutboundPorts: \"80\"")) == [
                "\(place).\(Self.traffic)includeOutboundPorts: has no effect: without "
                    + "\(Self.traffic)includeOutboundIPRanges every address is included"
            ])
        #expect(
            findings(yaml("\(Self.traffic)excludeInboundPorts: \"80\"\n\(Self.traffic)includeInboundPorts: \"80\""))
                == [
                    "\(place).\(Self.traffic)excludeInboundPorts: has no effect: "
                        + "\(Self.traffic)includeInboundPorts lists all that is included"
                ])
        #expect(
            findings(yaml("\(Self.traffic)excludeInboundPorts: \"80,15006\"")) == [
                "\(place).\(Self.traffic)excludeInboundPorts: has no effect for 15006, a port of the proxy"
            ])
        #expect(
            findings(
                yaml(
                    "\(Self.traffic)excludeInboundPorts: \"80\"\nambient.istio.io/bypass-inbound-capture: \"true\""))
                == [
                    "\(place).\(Self.traffic)excludeInboundPorts: has no effect with "
                        + "ambient.istio.io/bypass-inbound-capture"
                ])
        #expect(
            findings(yaml("\(Self.traffic)excludeInboundPorts: \"80\"", spec: "protocol: TLS")) == [
                "\(place).\(Self.traffic)excludeInboundPorts: has no effect: the workload is not captured"
            ])
    }
}
