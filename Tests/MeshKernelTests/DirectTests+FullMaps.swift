import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// Without room for what a tier needs, the slower one carries the connection: it is counted, and nothing is let out that
/// policy would not have let out.
extension DirectTests {
    @Test func aRuleWithoutRoomIsTheProxysAndIsTriedAgain_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        // What an earlier daemon left makes room, so the map fills behind this one's back.
        #expect(try capture.setDirectRules([:]) == 0)
        #expect(capture.objects.rules.fill { .init(UInt64(1 << 40 + $0)) } == 65536)
        let wanted = [pair: DirectRule(isDirect: true)]
        #expect(try capture.setDirectRules(wanted) == 1)
        #expect(try capture.setDirectRules(wanted) == 1, "an unchanged set has no more room than before")
        try expectProxied()
        #expect(capture.statistics()[.directNoRule] == 1 && capture.statistics()[.direct] == 0)
        capture.objects.rules.remove(.init(UInt64(1 << 40)))
        #expect(try capture.setDirectRules(wanted) == 0)
        try expectDirect()
    }

    @Test func aRuleThatGrowsIntoAFullMapLeavesTheOthersInForce_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        try allow()
        capture.objects.rules.fill { .init(UInt64(1 << 40 + $0)) }
        let back = DirectPair(source: called, destination: caller)
        #expect(try capture.setDirectRules([pair: DirectRule(isDirect: true), back: DirectRule(isDirect: true)]) == 1)
        try expectDirect()
        // Another generation: the one that has its place keeps it.
        let other = DirectRule(isDirect: true, exceptions: [80])
        #expect(try capture.setDirectRules([pair: other, back: other]) == 1)
        try expectDirect()
        #expect(capture.statistics()[.directStale] == 0)
    }

    @Test func theRulesOfAnEarlierDaemonMakeRoom_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        #expect(capture.objects.rules.fill { .init(UInt64(1 << 40 + $0)) } == 65536)
        try allow()
        try expectDirect()
    }

    @Test func anAddressWithoutRoomIsReachedThroughTheProxy_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        try capture.detach(called)
        let room = capture.objects.endpoints.fill { Nobody.ip($0).abi }
        #expect(room == 32768 - 2, "the caller has two")
        try lab.attach(
            capture, calledProxy, name: called,
            addresses: [#require(IPAddress("10.77.0.1")), #require(IPAddress("fd00:77::1"))], in: lab.out)
        try allow()
        for host in ["10.77.0.1", "fd00:77::1"] { try expectProxied(host) }
        #expect(capture.statistics()[.direct] == 0 && capture.statistics()[.outboundMarked] == 2)
    }

    @Test func aServiceWithoutRoomIsTheProxysAndIsTriedAgain() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        try allow()
        let service = try #require(SocketAddress("10.96.0.1:80"))
        let wanted = [service: [try #require(SocketAddress("10.77.0.1:8080"))]]
        capture.setDirectServices([:])
        #expect(capture.objects.services.fill { .init(Nobody.address($0)) } == 16384)
        capture.setDirectServices(wanted)
        #expect(try lab.connect(in: lab.pod, "10.96.0.1", 80).error == "")
        let accepted = try #require(callerProxy.accept(callerProxy.outbound))
        #expect(accepted.destination == "10.96.0.1" && accepted.port == 80, "untouched")
        close(accepted.socket)
        #expect(capture.statistics()[.direct] == 0)
        capture.objects.services.remove(.init(Nobody.address(0)))
        capture.setDirectServices(wanted)
        #expect(try lab.connect(in: lab.pod, "10.96.0.1", 80, "text=hello").answer.hasSuffix("|hello"))
        #expect(capture.statistics()[.direct] == 1)
    }

    /// The map holds as many as the count says: no connection is begun that could not be noted.
    @Test func withoutRoomToFollowThemConnectionsAreTheProxys_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        try allow()
        let limit = 65536 - 4096
        #expect(capture.objects.flows.fill(upTo: limit) { .init(Nobody.address($0), Nobody.address(0)) } == limit)
        let all = capture.objects.flows.entries.map { $0.key.source.ip.low }
        #expect(all.count == limit && Set(all) == Set(0..<UInt64(limit)), "each is read, and once")
        #expect(capture.objects.flowCount.update(UInt64(limit), for: 0) == 0)
        try expectProxied()
        #expect(capture.statistics()[.directFull] == 1 && capture.statistics()[.direct] == 0)
        #expect(capture.objects.flowCount.update(UInt64(limit - 1), for: 0) == 0)
        try expectDirect()
        #expect(capture.followedFlows == limit - 1 && capture.directFlowCount == 0)
    }

    /// The count says that there is room and the map has none: what nobody vouches for is plaintext to the server's side.
    @Test func aConnectionThatCannotBeNotedIsJudgedAsPlaintext_P11() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        try allow()
        #expect(capture.objects.flows.fill { .init(Nobody.address($0), Nobody.address(0)) } == 65536)
        for (host, source) in [("10.77.0.1", "10.77.0.2"), ("fd00:77::1", "fd00:77::2")] {
            #expect(try lab.connect(in: lab.pod, host, 8080).error == "")
            let accepted = try #require(calledProxy.accept(calledProxy.inbound), "\(host) went around both proxies")
            #expect(accepted.source == source && accepted.destination == host && accepted.port == 8080)
            close(accepted.socket)
        }
        #expect(callerProxy.accept(callerProxy.outbound) == nil)
        let statistics = capture.statistics()
        #expect(statistics[.direct] == 2 && statistics[.directLost] == 2 && statistics[.directPassed] == 0)
        #expect(statistics[.inboundSteered] == 2 && capture.followedFlows == 0)
    }

    // MARK: What else is counted and should stay 0

    @Test func aListenerOfTheWrongFamilyDropsAndIsCounted() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        var options = ListenOptions()
        options.transparent = true
        let listener = try lab.namespace(lab.pod).run { () throws(SystemError) -> Int32 in
            try Socket.listen(.v4(0, port: 0), options: options)
        }
        defer { Socket.close(listener) }
        let slot = try #require(capture.workloads.first { $0.workload == caller }).slot
        let key = ListenerRole.outbound.key(slot: slot)
        #expect(capture.objects.listeners.update(UInt64(listener), for: key) == 0)
        #expect(try lab.connect(in: lab.pod, "fd00:77::1", 8080, "text=secret").error == "ECONNREFUSED")
        #expect(capture.statistics(of: caller)?[.droppedAssign] == 1)
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "", "of its own family it takes them")
        #expect(capture.statistics(of: caller)?[.droppedAssign] == 1)
    }

    /// Since Linux 5.7 anybody may bind a socket to a device, but without CAP_NET_RAW not unbind it, and neither may the
    /// hook that runs on their behalf.
    @Test func aDeviceThatCannotBeClearedIsRefusedAndCounted() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try #require(capture)
        let program = """
            import errno, os, socket
            os.setgid(65534)
            os.setuid(65534)
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, 25, b'e0')
            print(errno.errorcode.get(s.connect_ex(('10.77.0.1', 8080)), 'connected'))
            """
        #expect(try lab.python(in: lab.pod, program, []).contains("ECONNREFUSED"))
        #expect(capture.statistics(of: caller)?[.refusedDevice] == 1)
        #expect(calledProxy.accept(calledProxy.inbound) == nil)
    }
}
