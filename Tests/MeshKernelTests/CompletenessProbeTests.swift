import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Health probes of the node's agent (P8): `out` plays the node's own namespace, `pod` is the workload.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class CompletenessProbeTests {
    let lab: Lab
    var capture: KernelCapture?
    let proxy: Proxy
    let groups: [String]

    init() throws {
        lab = try Lab()
        groups = ["agent", "agent/worker", "agentless"]
        do {
            for group in groups { try #require(mkdir("\(lab.cgroup)/\(group)", 0o755) == 0) }
            proxy = try Proxy(in: lab.namespace(lab.pod))
            var options = lab.options
            options.kubeletCgroup = "\(lab.cgroup)/agent"
            capture = try KernelCapture(options: options)
            try lab.serve(in: lab.pod, port: 8080)
            try lab.attach(try #require(capture), proxy)
        } catch {
            for group in groups.reversed() { rmdir("\(lab.cgroup)/\(group)") }
            lab.tearDown()
            throw error
        }
    }

    deinit {
        proxy.close()
        try? capture?.uninstall()
        for group in groups.reversed() { rmdir("\(lab.cgroup)/\(group)") }
        lab.tearDown()
    }

    /// What a probe from `group` is answered with; empty: nothing, since the proxy has it.
    private func probe(_ group: String, _ host: String = "10.77.0.2", in namespace: String? = nil) throws -> String {
        let program = """
            import socket, sys
            s = socket.create_connection((sys.argv[1], 8080), timeout=10)
            s.sendall(b'healthy?')
            s.shutdown(socket.SHUT_WR)
            s.settimeout(float(sys.argv[2]))
            try:
                print(b''.join(iter(lambda: s.recv(1000), b'')).decode())
            except TimeoutError:
                pass
            """
        let isExpected = group.hasPrefix("agent") && group != "agentless"
        let answer = try lab.python(
            in: namespace ?? lab.out, cgroup: group, program, [host, isExpected ? "20" : "0.2"])
        return answer.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    @Test func onlyTheAgentsConnectionsPass_P8() throws {
        let capture = try #require(capture)
        for (group, host) in [
            ("agent", "10.77.0.2"), ("agent/worker", "10.77.0.2"), ("agent", "fd00:77::2"),
            ("agent", "::ffff:10.77.0.2"),
        ] {
            #expect(try probe(group, host).hasSuffix("|healthy?"), "\(group) \(host)")
            #expect(proxy.accept(proxy.inbound) == nil, "\(group) \(host)")
        }
        for group in ["apps", "agentless"] {
            #expect(try probe(group) == "")
            let accepted = try #require(proxy.accept(proxy.inbound), "\(group) went around the proxy")
            close(accepted.socket)
        }
        let statistics = try #require(capture.statistics(of: lab.name))
        #expect(statistics[.probe] == 4 && statistics[.probePassed] >= 4 && statistics[.inboundSteered] == 2)
        // Nothing is left behind, and nothing is told of as a connection of the mesh.
        #expect(capture.followedFlows == 0 && capture.directFlows().isEmpty)
        #expect(try ClosedFlows(of: capture).next(within: 0).isEmpty)
    }

    /// They are followed, and are no connections of the mesh; each counts until its socket closes.
    @Test func openProbesAreNotCountedAsDirectConnections() throws {
        let capture = try #require(capture)
        let held = try Background(
            lab.inside(lab.out, cgroup: "agent") + ["python3", "-c", Applications.holder, "10.77.0.2", "8080"])
        #expect(capture.followedFlows == 1 && capture.directFlowCount == 0)
        try capture.detach(lab.name)
        #expect(capture.followedFlows == 1 && capture.objects.flows.keys.count == 1)
        try shell("ip netns exec \(lab.out) ss -K dst 10.77.0.2")
        #expect(held.rest() == "ECONNABORTED")
        #expect(capture.followedFlows == 0 && capture.objects.flows.keys.isEmpty)
    }

    @Test func theAgentInsideAWorkloadIsAnApplication() throws {
        let seen = try lab.python(
            in: lab.pod, cgroup: "agent",
            "import socket; s = socket.create_connection(('192.0.2.1', 80), timeout=10); print(s.getpeername()[0])", [])
        #expect(seen.contains("192.0.2.1"))
        let accepted = try #require(proxy.accept(proxy.outbound))
        close(accepted.socket)
    }

    @Test func aRestartedAgentIsFoundAgain_P8() throws {
        let capture = try #require(capture)
        for group in ["agent/worker", "agent"] { try #require(rmdir("\(lab.cgroup)/\(group)") == 0) }
        capture.refreshAgent()
        for group in ["agent", "agent/worker"] { try #require(mkdir("\(lab.cgroup)/\(group)", 0o755) == 0) }
        capture.refreshAgent()
        #expect(try probe("agent").hasSuffix("|healthy?"))
    }

    @Test func withoutRoomForItAProbeIsJudgedAsPlaintext() throws {
        let capture = try #require(capture)
        // One that is open shows what an entry looks like.
        let held = try Background(
            lab.inside(lab.out, cgroup: "agent") + ["python3", "-c", Applications.holder, "10.77.0.2", "8080"])
        defer { held.stop() }
        let flow = try #require(capture.objects.flows.keys.first.flatMap { capture.objects.flows.value(for: $0) })
        var port: UInt16 = 0
        var host: UInt32 = 0
        while capture.objects.flows.update(
            flow,
            for: .init(SocketAddress(ip: IPAddress(v4: host), port: port), SocketAddress(ip: lab.v4, port: 1))) == 0
        {
            if port == .max { host += 1 }
            port &+= 1
        }
        #expect(try lab.connect(in: lab.out, "10.77.0.2", 8080).error == "")
        let outcome = try lab.python(
            in: lab.out, cgroup: "agent",
            "import socket; socket.create_connection(('10.77.0.2', 8080), timeout=10).close(); print('made')", [])
        #expect(outcome.contains("made"))
        for _ in 0..<2 {
            let accepted = try #require(proxy.accept(proxy.inbound))
            close(accepted.socket)
        }
        #expect(try #require(capture.statistics(of: lab.name))[.probeLost] == 1)
    }

    @Test func wrongPathsAreRefusedByName() throws {
        capture = nil
        for (path, words) in [
            ("\(lab.cgroup)/nobody", "there is no such directory"), ("/tmp", "it is not on a cgroup2 file system"),
            (lab.cgroup, "do not see it"), ("\(lab.cgroup)/..", "do not see it"),
        ] {
            var options = lab.options
            options.kubeletCgroup = path
            #expect {
                _ = try KernelCapture(options: options)
            } throws: { error in
                "\(error)".contains(words) && "\(error)".contains(path)
            }
        }
    }
}
