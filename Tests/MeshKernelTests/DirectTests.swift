import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Tier T1: both namespaces of the lab are workloads of this node. P11 of the design's test list and what follows from
/// it; `caller` lives in `pod`, `called` in `out`.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class DirectTests {
    let lab: Lab
    var capture: KernelCapture?
    let callerProxy: Proxy
    let calledProxy: Proxy
    let caller = ObjectName(namespace: "default", name: "caller")
    let called = ObjectName(namespace: "default", name: "called")
    var pair: DirectPair { DirectPair(source: caller, destination: called) }

    init() throws {
        lab = try Lab()
        do {
            capture = try KernelCapture(options: lab.options)
            callerProxy = try Proxy(in: lab.namespace(lab.pod))
            calledProxy = try Proxy(in: lab.namespace(lab.out))
            try attachBoth()
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        callerProxy.close()
        calledProxy.close()
        try? capture?.uninstall()
        lab.tearDown()
    }

    private func attachBoth() throws {
        let capture = try #require(capture)
        try lab.attach(capture, callerProxy, name: caller)
        try lab.attach(
            capture, calledProxy, name: called,
            addresses: [#require(IPAddress("10.77.0.1")), #require(IPAddress("fd00:77::1"))], in: lab.out)
    }

    func allow(_ rule: DirectRule = DirectRule(isDirect: true)) throws {
        #expect(try #require(capture).setDirectRules([pair: rule]) == 0)
    }

    /// Records until one of `port` came.
    func record(_ port: UInt16 = 8080) throws -> DirectRecord {
        let ring = try ClosedFlows(of: #require(capture))
        for _ in 0..<100 {
            if let record = ring.next(within: 100).last(where: { $0.destination.port == port }) { return record }
        }
        throw ShellFailure(description: "no record of a closed connection came")
    }

    /// The proxy of the caller gets the connection, and the application does not.
    func expectProxied(_ host: String = "10.77.0.1", sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(try lab.connect(in: lab.pod, host, 8080).error == "", sourceLocation: sourceLocation)
        let accepted = try #require(callerProxy.accept(callerProxy.outbound), sourceLocation: sourceLocation)
        #expect(accepted.destination == host && accepted.port == 8080, sourceLocation: sourceLocation)
        close(accepted.socket)
    }

    func expectDirect(_ host: String = "10.77.0.1", sourceLocation: SourceLocation = #_sourceLocation) throws {
        let seen = try lab.connect(in: lab.pod, host, 8080, "text=straight")
        #expect(seen.error == "" && seen.answer.hasSuffix("|straight"), sourceLocation: sourceLocation)
        #expect(seen.peer == host, sourceLocation: sourceLocation)
        let proxied = callerProxy.accept(callerProxy.outbound) ?? calledProxy.accept(calledProxy.inbound)
        #expect(proxied == nil, "a proxy saw it", sourceLocation: sourceLocation)
    }

    @Test func withoutARuleTheProxyDecides_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        try expectProxied()
        try #require(capture).setDirectRules([
            DirectPair(source: called, destination: caller): DirectRule(isDirect: true)
        ])
        try expectProxied()
        #expect(try #require(capture).statistics(of: caller)?[.directNoRule] == 1)
    }

    @Test(arguments: [0, 2]) func whatIsAllowedGoesStraight_P11(synCookies: Int) throws {
        try shell("ip netns exec \(lab.out) sysctl -qw net.ipv4.tcp_syncookies=\(synCookies)")
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        for (host, client) in [
            ("10.77.0.1", "10.77.0.2"), ("fd00:77::1", "fd00:77::2"), ("::ffff:10.77.0.1", "10.77.0.2"),
        ] {
            try expectDirect(host)
            let record = try record()
            #expect("\(record.source.ip)" == client)
            #expect(record.isEstablished && record.isOrderly)
            // The server answers with both addresses, a bar, and what it read.
            let answer = host.contains("fd00") ? "fd00:77::2 fd00:77::1|" : "::ffff:10.77.0.2 ::ffff:10.77.0.1|"
            #expect(record.bytesSent == 8 && record.bytesReceived == UInt64(answer.utf8.count) + 8)
            #expect(record.endedAt > record.startedAt && record.roundTripMicroseconds > 0)
        }
        let statistics = try #require(capture).statistics()
        #expect(statistics[.direct] == 3 && statistics[.directPassed] >= 3 && statistics[.outboundMarked] == 0)
        #expect(try #require(capture).followedFlows == 0)
    }

    @Test func workloadsWithIPv6AloneGoStraight_P6() throws {
        let capture = try #require(capture)
        try lab.attach(capture, callerProxy, name: caller, addresses: [lab.v6])
        try lab.attach(capture, calledProxy, name: called, addresses: [#require(IPAddress("fd00:77::1"))], in: lab.out)
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        try expectDirect("fd00:77::1")
        #expect("\(try record().source.ip)" == "fd00:77::2")
        // The addresses of the other family are there, and are nobody's.
        for host in ["10.77.0.1", "::ffff:10.77.0.1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080).error == "ENETUNREACH")
        }
        let statistics = try #require(capture.statistics(of: caller))
        #expect(statistics[.direct] == 1 && statistics[.refusedNoAddress] == 2 && statistics[.outboundMarked] == 0)
    }

    @Test func anEndpointOfAServiceIsChosenInTheKernel() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let capture = try #require(capture)
        let services = ["10.96.0.1:80": "10.77.0.1:8080", "[fd96::1]:80": "[fd00:77::1]:8080"].map {
            (SocketAddress($0.key)!, [SocketAddress($0.value)!])
        }
        capture.setDirectServices(Dictionary(uniqueKeysWithValues: services))
        for (host, seenAs) in [
            ("10.96.0.1", "::ffff:10.77.0.2 ::ffff:10.77.0.1|"), ("fd96::1", "fd00:77::2 fd00:77::1|"),
            ("::ffff:10.96.0.1", "::ffff:10.77.0.2 ::ffff:10.77.0.1|"),
        ] {
            let seen = try lab.connect(in: lab.pod, host, 80, "text=hello")
            #expect(seen.error == "" && seen.answer == "\(seenAs)hello")
            #expect(seen.peer == host, "getpeername stays what the application asked for")
            let record = try record()
            #expect(record.service == SocketAddress(ip: try #require(IPAddress(host)), port: 80))
            #expect(record.bytesSent == 5)
        }
        #expect(callerProxy.accept(callerProxy.outbound) == nil)
        // Without a rule for the endpoint the proxy gets the service's address, untouched.
        try allow(DirectRule(isDirect: true, exceptions: [8080]))
        #expect(try lab.connect(in: lab.pod, "10.96.0.1", 80).error == "")
        let accepted = try #require(callerProxy.accept(callerProxy.outbound))
        #expect(accepted.destination == "10.96.0.1" && accepted.port == 80)
        close(accepted.socket)
        try allow()
        capture.setDirectServices([:])
        #expect(try lab.connect(in: lab.pod, "10.96.0.1", 80).error == "")
        let second = try #require(callerProxy.accept(callerProxy.outbound))
        #expect(second.destination == "10.96.0.1")
        close(second.socket)
    }

    @Test func portsAreDecidedOneByOne_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow(DirectRule(isDirect: true, exceptions: [80, 8080]))
        try expectProxied()
        try allow(DirectRule(isDirect: false, exceptions: [80, 8080]))
        try expectDirect()
        try allow(DirectRule(isDirect: false, exceptions: [80]))
        try expectProxied()
        let all = (0..<UInt16(DirectRule.maximumExceptions)).map { 9000 + $0 }.dropLast() + [9999]
        try allow(DirectRule(isDirect: false, exceptions: [8080] + all.dropFirst()))
        try expectDirect()
    }

    @Test func rulesOfAnOlderGenerationDoNotCount_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        try expectDirect()
        let capture = try #require(capture)
        for key in capture.objects.rules.keys {
            #expect(capture.objects.rules.update(.init(DirectRule(isDirect: true), generation: 0), for: key) == 0)
        }
        try expectProxied()
        #expect(capture.statistics()[.directStale] == 1)
    }

    @Test func aRefusedPortIsRefusedByTheApplicationsKernel() throws {
        try allow()
        let seen = try lab.connect(in: lab.pod, "10.77.0.1", 8081)
        #expect(seen.error == "ECONNREFUSED")
        let record = try record(8081)
        #expect(!record.isEstablished && record.bytesSent == 0 && record.bytesReceived == 0)
    }

    @Test func openConnectionsAreListedConfirmedAndEnded_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        try allow()
        for host in ["10.77.0.1", "fd00:77::1", "::ffff:10.77.0.1"] {
            let client = try lab.hold(in: lab.pod, host, 8080)
            let flow = try #require(capture.directFlows().first)
            #expect(flow.isConfirmed && flow.destination.port == 8080 && capture.followedFlows == 1)
            try allow(DirectRule(isDirect: false, exceptions: [80]))
            let stale = try #require(capture.directFlows().first)
            #expect(!stale.isConfirmed && stale.source == flow.source)
            capture.confirm(stale)
            #expect(capture.directFlows().first?.isConfirmed == true)
            #expect(try capture.end(stale))
            #expect(client.rest() == "ECONNABORTED")
            let record = try record()
            #expect(record.source == flow.source && record.isEstablished && !record.isOrderly && record.bytesSent == 1)
            #expect(capture.directFlows().isEmpty && capture.followedFlows == 0)
            try allow()
        }
    }

    @Test func aWorkloadTakesItsConnectionsWithIt() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let client = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        let capture = try #require(capture)
        try capture.detach(called)
        #expect(client.rest() == "ECONNABORTED")
        #expect(capture.directFlows().isEmpty && capture.followedFlows == 0 && capture.objects.rules.keys.isEmpty)
        #expect(capture.objects.endpoints.keys.count == 2, "the caller's own two addresses are left")
    }

    @Test func anotherDaemonTakesOpenConnectionsOver() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let client = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        capture = nil
        capture = try KernelCapture(options: lab.options)
        try attachBoth()
        let capture = try #require(capture)
        let flow = try #require(capture.directFlows().first)
        #expect(!flow.isConfirmed)
        try expectProxied()
        try allow()
        #expect(try #require(capture.directFlows().first).isConfirmed == false, "new rules say nothing about old flows")
        capture.confirm(flow)
        #expect(try #require(capture.directFlows().first).isConfirmed)
        try expectDirect()
        #expect(try capture.end(flow))
        #expect(client.rest() == "ECONNABORTED")
    }

    @Test func aStrangerWithAWrongTupleIsNotLetThrough() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let client = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        // From a namespace of no workload the same server is behind its proxy.
        try #require(capture).detach(caller)
        let seen = try lab.connect(in: lab.pod, "10.77.0.1", 8080)
        #expect(seen.error == "")
        let accepted = try #require(calledProxy.accept(calledProxy.inbound))
        #expect(accepted.source == "10.77.0.2")
        close(accepted.socket)
        client.stop()
    }

    @Test func multipathConnectionsGoThroughTheProxyAndFallBack_P16() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        try expectDirect()
        let capture = try #require(capture)
        for host in ["10.77.0.1", "fd00:77::1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080, "protocol=262").error == "")
            let accepted = try #require(callerProxy.accept(callerProxy.outbound), "\(host) went straight")
            #expect(accepted.destination == host && accepted.port == 8080)
            close(accepted.socket)
        }
        #expect(capture.statistics()[.direct] == 1)
    }
}
