import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// An address that another workload has now: nothing of the one before it, neither an open connection nor what policy
/// allowed it, is the new one's.
extension DirectTests {
    private var heir: ObjectName { ObjectName(namespace: "default", name: "heir") }

    /// Lends a third namespace, which the address of `called` has moved to, with its device.
    private func withHeir(_ body: (_ namespace: String, _ proxy: Proxy) throws -> Void) throws {
        let next = "\(lab.id)h"
        try shell("ip netns add \(next)")
        defer { _ = try? shell("ip netns del \(next)") }
        try shell("ip -n \(next) link set lo up")
        try shell("ip -n \(lab.out) link set e1 netns \(next)")
        try shell("ip -n \(next) link set e1 addrgenmode none")
        try shell("ip -n \(next) addr add 10.77.0.1/24 dev e1")
        try shell("ip -n \(next) addr add fd00:77::1/64 dev e1 nodad")
        try shell("ip -n \(next) link set e1 up")
        let proxy = try Proxy(in: lab.namespace(next))
        defer {
            proxy.close()
            try? capture?.detach(heir)
        }
        try body(next, proxy)
    }

    private func attachHeir(_ namespace: String, _ proxy: Proxy) throws -> UInt32 {
        let capture = try #require(capture)
        return try lab.attach(
            capture, proxy, name: heir,
            addresses: [#require(IPAddress("10.77.0.1")), #require(IPAddress("fd00:77::1"))], in: namespace
        ).slot
    }

    /// A program that no hook sees sends a SYN of this tuple, as a captured one could not.
    private func replay(_ flow: DirectFlow) throws {
        let program = """
            import socket, sys
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(('\(flow.source.ip)', \(flow.source.port)))
            s.settimeout(10)
            s.connect(('\(flow.destination.ip)', \(flow.destination.port)))
            """
        let outcome = try run(["nsenter", "--net=/run/netns/\(lab.pod)", "python3", "-c", program])
        #expect(outcome.status == 0, "\(outcome.errors)")
    }

    private func slots() throws -> [UInt32?] {
        let endpoints = try #require(capture).objects.endpoints
        return try ["10.77.0.1", "fd00:77::1"].map { endpoints.value(for: try #require(IPAddress($0)).abi) }
    }

    private func checkHeir(_ slot: UInt32, _ proxy: Proxy, _ flow: DirectFlow) throws {
        let capture = try #require(capture)
        #expect(try slots() == [slot, slot])
        let before = capture.statistics()[.directNoRule]
        for host in ["10.77.0.1", "fd00:77::1"] { try expectProxied(host) }
        #expect(capture.statistics()[.directNoRule] == before + 2)
        #expect(proxy.accept(proxy.inbound) == nil)
        try replay(flow)
        let accepted = try #require(proxy.accept(proxy.inbound), "the tuple of another workload's connection let it in")
        #expect(accepted.source == "\(flow.source.ip)" && accepted.port == flow.destination.port)
        close(accepted.socket)
        #expect(capture.directFlows().isEmpty)
    }

    @Test func anAddressThatAnotherWorkloadGetsLaterBringsItNothing() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let client = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        let capture = try #require(capture)
        let flow = try #require(capture.directFlows().first)
        let old = try #require(capture.workloads.first { $0.workload == called }).slot
        try capture.detach(called)
        #expect(client.rest() == "ECONNABORTED")
        #expect(try slots() == [nil, nil])
        try withHeir { namespace, proxy in
            try lab.serve(in: namespace, port: 8080)
            let slot = try attachHeir(namespace, proxy)
            #expect(slot == old, "it has the place of the one that is gone")
            try checkHeir(slot, proxy, flow)
        }
    }

    @Test func anAddressThatAnotherWorkloadHasAlreadyStaysItsOwn() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let client = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        let capture = try #require(capture)
        let flow = try #require(capture.directFlows().first)
        try withHeir { namespace, proxy in
            try lab.serve(in: namespace, port: 8080)
            let slot = try attachHeir(namespace, proxy)
            #expect(try slots() == [slot, slot])
            try expectProxied()
            try capture.detach(called)
            #expect(client.rest() == "ECONNABORTED")
            try checkHeir(slot, proxy, flow)
        }
    }

    /// The client's end cannot be reached: an earlier daemon captured it, and this one has not attached it yet.
    @Test func aConnectionThatCannotBeEndedIsNobodys() throws {
        try lab.serve(in: lab.out, port: 8080)
        try allow()
        let client = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        capture = nil
        capture = try KernelCapture(options: lab.options)
        let capture = try #require(capture)
        let flow = try #require(capture.directFlows().first)
        #expect(capture.sweep(keeping: [caller]) == [called])
        #expect(capture.directFlows().isEmpty)
        // The programs alone count: its entry is there for nobody until its socket closes.
        #expect(capture.followedFlows == 1 && capture.objects.flows.keys.count == 1)
        try lab.attach(
            capture, calledProxy, name: heir,
            addresses: [#require(IPAddress("10.77.0.1")), #require(IPAddress("fd00:77::1"))], in: lab.out)
        #expect(capture.directFlows().isEmpty)
        try lab.attach(capture, callerProxy, name: caller)
        #expect(try capture.end(flow))
        #expect(client.rest() == "ECONNABORTED")
        #expect(capture.followedFlows == 0 && capture.objects.flows.keys.isEmpty)
    }
}
