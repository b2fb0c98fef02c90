import MeshModel
import Testing

@Suite("What of a workload's traffic is captured")
struct CaptureScopeTests {
    private func block(_ text: String) -> CIDR { CIDR(text)! }
    private func takes(_ scope: CaptureScope, _ address: String) -> Bool {
        scope.takesOutbound(to: SocketAddress(address)!)
    }

    @Test("everything, unless something is said")
    func whole() {
        let scope = CaptureScope()
        #expect(scope.isWhole && scope.isWholeInbound && scope.isWholeOutbound)
        #expect(takes(scope, "10.0.0.1:80") && takes(scope, "[fd00::1]:80") && scope.takesInbound(port: 80))
        #expect("\(scope)" == "outbound all; inbound all")
        // Ports alone leave everything included.
        let ports = CaptureScope(includedOutboundPorts: [80])
        #expect(ports.isWhole && takes(ports, "10.0.0.1:81"))
    }

    @Test("what is excluded wins over what is included, whichever is the longer block")
    func exclusionWins() {
        let scope = CaptureScope(
            includedOutbound: [block("10.1.2.0/24"), block("10.0.0.0/8")],
            excludedOutbound: [block("10.1.0.0/16"), block("10.2.3.0/24")],
            includedOutboundPorts: [443], excludedOutboundPorts: [22])
        for (address, isTaken) in [
            ("10.0.0.1:80", true), ("10.0.0.1:22", false), ("10.1.2.3:80", false), ("10.1.2.3:443", false),
            ("10.2.3.4:80", false), ("10.2.4.4:80", true), ("192.0.2.1:80", false), ("192.0.2.1:443", true),
            ("[fd00::1]:80", false), ("[fd00::1]:443", true),
        ] { #expect(takes(scope, address) == isTaken, "\(address)") }
        #expect(
            scope.outboundBlocks == [
                block("10.1.2.0/24"): false, block("10.0.0.0/8"): true, block("10.1.0.0/16"): false,
                block("10.2.3.0/24"): false,
            ])
        #expect(
            "\(scope)"
                == "outbound only 10.1.2.0/24, 10.0.0.0/8, port 443 but 10.1.0.0/16, 10.2.3.0/24, port 22; inbound all")
    }

    @Test("an empty list of what is included means nothing, but for the proxy's own ports")
    func nothing() {
        let scope = CaptureScope(includedOutbound: [], includedInboundPorts: [])
        #expect(!takes(scope, "10.0.0.1:80") && !scope.takesInbound(port: 80) && !scope.isWhole)
        #expect("\(scope)" == "outbound nothing; inbound nothing")
        for port: UInt16 in [15001, 15006, 15008] { #expect(scope.takesInbound(port: port)) }
    }

    @Test("inbound ports are a list of what is excluded, or of all that is included")
    func inbound() {
        let excluded = CaptureScope(excludedInboundPorts: [9090])
        #expect(!excluded.takesInbound(port: 9090) && excluded.takesInbound(port: 80))
        let included = CaptureScope(includedInboundPorts: [80, 9090], excludedInboundPorts: [9090])
        #expect(included.takesInbound(port: 80) && included.takesInbound(port: 9090))
        #expect(!included.takesInbound(port: 81))
        #expect("\(excluded)" == "outbound all; inbound all but port 9090")
        #expect("\(included)" == "outbound all; inbound only port 80, port 9090")
    }
}
