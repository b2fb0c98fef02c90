import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Another program at the connect hooks, before ours or after it. The kernel runs all of them, those of a cgroup before
/// those of its parent, and one refusal is enough. `caller` lives in `pod`, `called` in `out`.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class ForeignConnectTests {
    /// Where the foreign program is, seen from ours.
    enum Place: CaseIterable {
        case before, after, below, above

        /// Whether ours sees what the other one made of the destination.
        var runsFirst: Bool { self == .before || self == .below }
    }

    let lab: Lab
    var capture: KernelCapture?
    let callerProxy: Proxy
    let calledProxy: Proxy
    private var foreign: Background?
    let caller = ObjectName(namespace: "default", name: "caller")
    let called = ObjectName(namespace: "default", name: "called")

    init() throws {
        lab = try Lab()
        do {
            callerProxy = try Proxy(in: lab.namespace(lab.pod))
            calledProxy = try Proxy(in: lab.namespace(lab.out))
            // Somewhere outside of the mesh that plaintext would reach.
            try shell("ip -n \(lab.out) addr add 192.0.2.2/32 dev lo")
            try shell("ip -n \(lab.out) addr add 2001:db8::2/128 dev lo")
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        foreign?.stop()
        callerProxy.close()
        calledProxy.close()
        try? capture?.uninstall()
        lab.tearDown()
    }

    /// Ours and the other program, each at its place.
    private func begin(_ place: Place, _ arguments: [String]) throws {
        func attachForeign() throws {
            let cgroup = place == .below ? "\(lab.cgroup)/apps" : lab.cgroup
            foreign = try Background(["python3", "-c", Foreign.connecting, cgroup] + arguments)
        }
        if place == .before { try attachForeign() }
        var options = lab.options
        if place == .above { options.cgroupPath = "\(lab.cgroup)/apps" }
        let capture = try KernelCapture(options: options)
        self.capture = capture
        if place != .before { try attachForeign() }
        try lab.attach(capture, callerProxy, name: caller)
        try lab.attach(
            capture, calledProxy, name: called,
            addresses: [#require(IPAddress("10.77.0.1")), #require(IPAddress("fd00:77::1"))], in: lab.out)
        // Port 8080 and no other may be reached directly.
        try capture.setDirectRules([
            DirectPair(source: caller, destination: called): DirectRule(isDirect: false, exceptions: [8080])
        ])
    }

    private func counts() throws -> CaptureStatistics {
        try #require(capture?.statistics(of: caller))
    }

    /// No trace of a connection.
    private func expectNothing() throws {
        let capture = try #require(capture)
        #expect(capture.followedFlows == 0 && capture.objects.flows.keys.isEmpty)
        #expect(try ClosedFlows(of: capture).next(within: 0).isEmpty)
        let accepted = callerProxy.accept(callerProxy.outbound) ?? calledProxy.accept(calledProxy.inbound)
        #expect(accepted == nil, "a proxy saw it")
    }

    @Test(arguments: Place.allCases) func aRefusalOfAnotherProgramStandsAndLeavesNothing(place: Place) throws {
        try begin(place, ["deny"])
        try lab.serve(in: lab.out, port: 8080)
        for host in ["192.0.2.1", "2001:db8::1", "10.77.0.1", "fd00:77::1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080).error == "EPERM", "\(host)")
        }
        try expectNothing()
        // What was decided was counted: the hook cannot know what others will say.
        #expect(try counts()[.outboundMarked] == 2 && counts()[.direct] == 2)

        foreign?.stop()
        foreign = nil
        for host in ["192.0.2.1", "2001:db8::1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080).error == "")
            let accepted = try #require(callerProxy.accept(callerProxy.outbound))
            #expect(accepted.destination == host)
            close(accepted.socket)
        }
        for host in ["10.77.0.1", "fd00:77::1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080, "text=straight").answer.hasSuffix("|straight"))
        }
    }

    /// Each case: what the application asks for, where the other program sends it. None of them may arrive anywhere
    /// without the proxy, whatever the order.
    @Test(
        arguments: Place.allCases,
        [
            // Captured either way.
            ["192.0.2.1", "80", "192.0.2.2", "8081"], ["2001:db8::1", "80", "2001:db8::2", "8081"],
            // Direct if it stayed what it is: out of the mesh, and to a port that policy keeps for the proxy.
            ["10.77.0.1", "8080", "192.0.2.2", "8081"], ["fd00:77::1", "8080", "2001:db8::2", "8081"],
            ["10.77.0.1", "8080", "10.77.0.1", "8081"], ["fd00:77::1", "8080", "fd00:77::1", "8081"],
        ])
    func aDestinationThatAnotherProgramChangesIsTheProxysToJudge(place: Place, what: [String]) throws {
        try begin(place, what)
        try lab.serve(in: lab.out, port: 8081)
        #expect(try lab.connect(in: lab.pod, what[0], #require(UInt16(what[1])), "send=secret").error == "")
        let accepted = try #require(callerProxy.accept(callerProxy.outbound), "it went around the proxy")
        #expect(accepted.destination == what[2] && "\(accepted.port)" == what[3])
        close(accepted.socket)
        try expectNothing()
        let wasDirect = what[1] == "8080"
        #expect(try counts()[.directMoved] == (wasDirect && !place.runsFirst ? 1 : 0))
        #expect(try counts()[.outboundSteered] == 1)
    }

    /// A load balancer that turns a service into its endpoint: ours decides about the endpoint where it runs later, and
    /// about the service where it runs first.
    @Test(arguments: Place.allCases, [["192.0.2.1", "10.77.0.1"], ["2001:db8::1", "fd00:77::1"]])
    func anotherProgramsChoiceOfAnEndpointIsJudgedAsWhatItIs(place: Place, hosts: [String]) throws {
        try begin(place, [hosts[0], "80", hosts[1], "8080"])
        try lab.serve(in: lab.out, port: 8080)
        if place.runsFirst {
            let seen = try lab.connect(in: lab.pod, hosts[0], 80, "text=straight")
            #expect(seen.error == "" && seen.answer.hasSuffix("|straight"))
            #expect(try counts()[.direct] == 1 && counts()[.outboundMarked] == 0)
        } else {
            #expect(try lab.connect(in: lab.pod, hosts[0], 80).error == "")
            let accepted = try #require(callerProxy.accept(callerProxy.outbound))
            #expect(accepted.destination == hosts[1] && accepted.port == 8080)
            close(accepted.socket)
            #expect(try counts()[.direct] == 0 && counts()[.outboundMarked] == 1)
        }
    }

    /// What ours lets go, another program may still send elsewhere: this is the one thing that is not caught.
    @Test func aLoopbackConnectionThatAnotherProgramSendsOutIsNotCaptured() throws {
        try begin(.after, ["127.0.0.1", "80", "192.0.2.2", "8081"])
        try lab.serve(in: lab.out, port: 8081)
        #expect(try lab.connect(in: lab.pod, "127.0.0.1", 80).error == "")
        #expect(callerProxy.accept(callerProxy.outbound) == nil)
        // Not even here is it taken for the mesh's: the other workload judges it as plaintext.
        let accepted = try #require(calledProxy.accept(calledProxy.inbound))
        #expect(accepted.destination == "192.0.2.2")
        close(accepted.socket)
        #expect(try counts()[.exemptLocal] == 1)
    }
}
