import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// DNS capture on this machine's kernel at every level, with the test in the proxy's place: P17 from below. See `Lab`
/// for the topology, in which nobody answers questions but who is told to.
@Suite(.serialized, .timeLimit(.minutes(4)))
struct DNSCaptureTests {
    private static let levels = CaptureLevel.allCases
    private static let rules = [CaptureLevel.l2, .l3]
    /// The kernel tells a connected socket that nobody is there, an unconnected one hears nothing.
    private static let nobody = ["timeout", "ECONNREFUSED"]

    @Test(arguments: levels) func everySocketSeesTheServerItAsked(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            try dns.serve()
            // The last one is the workload's own address.
            let servers = ["192.0.2.53", "10.77.0.1", "10.77.0.2", "2001:db8::53", "fd00:77::1", "::ffff:192.0.2.54"]
            for round in 1...2 {
                dns.forgetQuestions()
                let lines = try dns.ask(
                    "192.0.2.53", "10.77.0.1", "10.77.0.2", "2001:db8::53", "fd00:77::1", "::ffff:192.0.2.54")
                let expected = servers.flatMap { ["loose \($0) \($0) 53", "tied \($0) \($0) 53 \($0) 53"] }
                #expect(lines == expected, "round \(round)")
                #expect(dns.asked.map(\.server) == servers.flatMap { [IPAddress($0), IPAddress($0)] })
                #expect(dns.asked.map(\.text) == servers.flatMap { [$0, $0] })
                #expect(dns.asked.allSatisfy { $0.isLocal } || dns.hasRules)
            }
            #expect(dns.capture.statistics(of: dns.lab.name)?[.dnsCaptured] == 24)
            // From the port of servers, as old resolvers ask.
            #expect(try dns.ask("10.77.0.1", "own=53").first == "loose 10.77.0.1 10.77.0.1 53")
        }
    }

    @Test(arguments: levels) func whatIsNotCaptured(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            // Before, and after it was let go, questions go where they are meant to: nobody answers there.
            #expect(try dns.ask("10.77.0.1", "hasty=1") == Self.nobody)
            #expect(!dns.capture.capturesDNS(of: dns.lab.name))
            try dns.serve()
            #expect(dns.capture.capturesDNS(of: dns.lab.name))
            #expect(try dns.ask("10.77.0.1").count { $0.hasSuffix("10.77.0.1 53") } == 2)
            // Loopback is the workload's own, other ports are nobody's business.
            #expect(try dns.ask("127.0.0.1", "::1", "hasty=1") == Self.nobody + Self.nobody)
            #expect(try dns.ask("10.77.0.1", "port=5353", "hasty=1") == Self.nobody)
            func count(_ event: CaptureEvent) throws -> UInt64 {
                try #require(dns.capture.statistics(of: dns.lab.name))[event]
            }
            // A socket bound to a device cannot reach lo and is left alone; an own address it can reach.
            let passed = try count(.dnsPassed)
            let bound = try dns.ask("10.77.0.1", "device=e0", "hasty=1").last
            #expect(bound == (dns.hasRules ? "tied 10.77.0.1 10.77.0.1 53 10.77.0.1 53" : "ECONNREFUSED"))
            #expect(try count(.dnsPassed) == passed + (dns.hasRules ? 0 : 1))
            // Rules know the proxy's own questions by their mark.
            if dns.hasRules {
                #expect(try dns.ask("10.77.0.1", "mark=\(CaptureConstants.proxyMark)", "hasty=1") == Self.nobody)
            }
            let refused = try count(.dnsRefused)
            try dns.capture.releaseDNS(of: dns.lab.name)
            #expect(!dns.capture.capturesDNS(of: dns.lab.name))
            #expect(try dns.ask("10.77.0.1", "hasty=1") == Self.nobody)
            #expect(try count(.dnsRefused) == refused, "by the other end, not by us")
            try dns.capture.releaseDNS(of: dns.lab.name)
        }
    }

    @Test(arguments: levels) func whatOthersSendIsNoQuestionOfTheWorkload(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            try dns.serve()
            // To the proxy's port, and to a server of the workload's own.
            _ = try dns.ask(in: dns.lab.out, "10.77.0.2", "fd00:77::2", "port=15053", "hasty=1")
            #expect(dns.asked.count == 4 && dns.asked.allSatisfy { $0.server == nil && !$0.isLocal }, "\(dns.asked)")
            #expect(try dns.ask(in: dns.lab.out, "10.77.0.2", "hasty=1") == Self.nobody)
            #expect(dns.asked.count == 4)
            // Who asks the proxy itself on loopback means no other server.
            #expect(try dns.ask("127.0.0.1", "port=15053").count == 2)
            #expect(dns.asked.suffix(2).allSatisfy { $0.server == nil && $0.isLocal }, "\(dns.asked)")
        }
    }

    @Test(arguments: levels) func withoutTheProxyQuestionsAreRefusedAtOnce(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            try dns.serve()
            dns.stop()
            let lines = try dns.ask("192.0.2.53", "2001:db8::53", "hasty=1")
            // The packet filter refuses as the kernel does, so an unconnected socket hears nothing.
            let refusal = dns.hasRules ? Self.nobody : ["ECONNREFUSED", "ECONNREFUSED"]
            #expect(lines == refusal + refusal)
            #expect(dns.capture.statistics(of: dns.lab.name)?[.dnsRefused] == (dns.hasRules ? 0 : 4))
            // The next server takes over, and whoever was asked is told still.
            try dns.serve()
            #expect(try dns.ask("192.0.2.53").count { $0.hasSuffix("192.0.2.53 53") } == 2)
            #expect(dns.asked.map(\.server) == [IPAddress("192.0.2.53"), IPAddress("192.0.2.53")])
        }
    }

    @Test(arguments: levels) func theNextDaemonFindsItCaptured(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            // Whoever lets questions out while no daemon runs is found out by the one who answers there.
            try dns.serve(in: dns.lab.out, saying: "from outside")
            try dns.serve()
            dns.stop()
            dns.fixture.kill()
            let lines = try dns.ask("10.77.0.1", "hasty=1")
            #expect(lines.allSatisfy { ["timeout", "ECONNREFUSED"].contains($0) }, "\(lines)")
            try dns.fixture.begin()
            try dns.fixture.attach()
            #expect(dns.capture.capturesDNS(of: dns.lab.name))
            #expect(try dns.ask("10.77.0.1", "hasty=1").allSatisfy { !$0.contains("from outside") })
            try dns.serve()
            #expect(try dns.ask("10.77.0.1").count { $0.hasSuffix("10.77.0.1 10.77.0.1 53 10.77.0.1 53") } == 1)
            #expect(dns.asked.map(\.server) == [IPAddress("10.77.0.1"), IPAddress("10.77.0.1")])
        }
    }

    @Test(arguments: levels) func nothingOfItStays(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let before = try fixture.surroundings()
            try fixture.attach()
            let dns = try DNSFixture(fixture)
            let captured = try fixture.surroundings()
            try dns.serve()
            #expect(try fixture.surroundings() != captured)
            dns.close()
            fixture.proxy.close()
            try fixture.capture.detach(fixture.lab.name)
            #expect(try fixture.surroundings() == before)
            #expect(try dns.ask("10.77.0.1", "hasty=1") == Self.nobody)
            #expect(throws: KernelError.self) { try dns.serve() }
        }
    }

    /// The connection table remembers a socket that asks all the time.
    @Test(arguments: rules) func aSocketThatLivesOnIsCapturedFromWhenTo(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            try dns.serve(in: dns.lab.out, saying: "from outside")
            let asker = try DNSFixture.Asker(dns)
            defer { asker.close() }
            for _ in 1...2 {
                #expect(asker.ask() == "from outside")
                try dns.serve()
                #expect(asker.ask() == "ours")
                let scope = CaptureScope(excludedOutboundPorts: [53])
                _ = try dns.capture.setScope(scope, of: dns.lab.name)
                #expect(asker.ask() == "ours", "exclusions are of TCP, at every level")
                #expect(dns.capture.capturesDNS(of: dns.lab.name))
                try dns.capture.releaseDNS(of: dns.lab.name)
                #expect(asker.ask() == "from outside")
                dns.stop()
            }
            try dns.serve()
            #expect(asker.ask() == "ours")
            try dns.capture.detach(dns.lab.name)
            #expect(asker.ask() == "from outside")
        }
    }

    @Test(arguments: rules) func aFamilyWithoutAnAddressIsLeftAlone(level: CaptureLevel) throws {
        try DNSFixture.with(level) { dns in
            try dns.serve(in: dns.lab.out, saying: "from outside")
            try dns.serve()
            try dns.fixture.attach(addresses: [dns.lab.v4])
            #expect(dns.capture.capturesDNS(of: dns.lab.name))
            #expect(try dns.ask("10.77.0.1").count { $0.hasSuffix("10.77.0.1 53") } == 2)
            let lines = try dns.ask("fd00:77::1")
            #expect(lines.count == 2 && lines.allSatisfy { $0.contains(" from outside fd00:77::1 53") }, "\(lines)")
            #expect(dns.capture.statistics(of: dns.lab.name)?[.dnsPassed] == 2)
        }
    }

    @Test func whereTheKernelCanRulesAreProbedInANamespaceThatGoes() throws {
        #expect(DNSRulesProbe.obstacle() == nil)
    }

    @Test func addressesThatAreNoAlias() {
        for text in ["127.0.0.1", "127.63.255.255", "127.128.0.0", "10.0.0.1", "::1", "fd63:756c:7665:7274:1::1"] {
            #expect(DNSOrigins.number(of: IPAddress(text)!) == nil, "\(text)")
        }
        #expect(DNSOrigins.number(of: IPAddress("127.64.0.7")!) == 7)
        #expect(DNSOrigins.number(of: IPAddress("fd63:756c:7665:7274::7")!) == 7)
    }
}
