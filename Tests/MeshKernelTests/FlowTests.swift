import Foundation
import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// Many flows, old flows, and flows that are none of ours. The names are those of the design's test list.
@Suite(.serialized, .timeLimit(.minutes(3)))
final class FlowTests {
    let lab: Lab
    let capture: KernelCapture
    let proxy: EchoingProxy

    init() throws {
        lab = try Lab()
        do {
            capture = try KernelCapture(options: lab.options)
            proxy = try EchoingProxy(in: lab.namespace(lab.pod))
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        proxy.close()
        try? capture.uninstall()
        lab.tearDown()
    }

    private func attach(_ namespace: String? = nil) throws {
        let namespace = namespace ?? lab.pod
        let cookie = try lab.cookie(namespace)
        try lab.withDescriptor(namespace) { descriptor in
            _ = try capture.attach(
                lab.name, namespace: descriptor, cookie: cookie, addresses: lab.addresses, listeners: proxy.listeners)
        }
    }

    /// 20,000 flows to each of three destinations, all open at once: a rewrite to one local address would end at the
    /// 28,232 ports of one destination. Where this process may not open 60,000 files, or memory is short, there are
    /// fewer flows and fewer ports, in the same proportion.
    @Test func sixtyThousandFlowsOfOnePodAreOpenAtOnce_P4() throws {
        let descriptors = Int(try OpenFiles.raiseLimit(to: 61_000))
        // A flow costs two sockets here, about 16 KiB.
        let most = try min(60_000, descriptors - 1000, availableMemory() / (16 << 10) / 2)
        let each = most / 3
        let ports = 28_232 * each / 20_000
        try #require(each >= 1000, "this machine has room for \(most) flows only")
        print("P4: \(3 * each) flows over \(ports) ports (\(descriptors) open files allowed)")
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.ip_local_port_range=32768\t\(32768 + ports - 1)")
        try attach()
        let outcome = try lab.load(
            in: lab.pod, "hold", "--to", "192.0.2.1:80", "--to", "192.0.2.2:80", "--to", "192.0.2.3:80", "--count",
            "\(each)", "--connections", "64", "--patience", "30")
        #expect(outcome.report.noPort == 0, "\(outcome.report)")
        #expect(outcome.status == 0 && outcome.report.opened == 3 * each && outcome.report.answered == 3 * each)
        #expect(3 * each > ports)
        #expect(proxy.destinations == ["192.0.2.1 80": each, "192.0.2.2 80": each, "192.0.2.3 80": each])
    }

    private func availableMemory() throws -> Int {
        let text = try String(contentsOfFile: "/proc/meminfo", encoding: .utf8)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") })
        return try #require(line.split(separator: " ").dropFirst().first.flatMap { Int($0) }) << 10
    }

    @Test func portsRunOutForEachDestinationApart_P4() throws {
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.ip_local_port_range=40000\t40099")
        try attach()
        let full = try lab.load(
            in: lab.pod, "hold", "--to", "192.0.2.1:80", "--to", "192.0.2.2:80", "--to", "192.0.2.3:80", "--count",
            "100")
        #expect(full.status == 0 && full.report.answered == 300, "\(full.report)")
        // Other destinations: the ports of those above wait in TIME_WAIT.
        let over = try lab.load(
            in: lab.pod, "hold", "--to", "192.0.2.4:80", "--to", "192.0.2.5:80", "--count", "101")
        #expect(over.report.noPort == 2 && over.report.failed == 2 && over.report.answered == 200, "\(over.report)")
    }

    /// Connections both ways exchange bytes before capture comes and after, and close in order.
    @Test func connectionsFromBeforeCaptureAreUnharmed_P5() throws {
        let inner = try lab.loadServer(in: lab.pod, echo: "[::]:7001")
        let outer = try lab.loadServer(in: lab.out, echo: "[::]:7001")
        var servers = [inner, outer]
        defer { for server in servers { server.stop() } }
        let clients = try [
            lab.holder(in: lab.pod, "--to", "10.77.0.1:7001", "--to", "[fd00:77::1]:7001", "--count", "100"),
            lab.holder(in: lab.out, "--to", "10.77.0.2:7001", "--to", "[fd00:77::2]:7001", "--count", "100"),
        ]
        try attach()
        for client in clients {
            let report = try client.finish()
            #expect(report.opened == 200 && report.answered == 200 && report.failed == 0, "\(report)")
        }
        servers = []
        for server in [inner, outer] {
            let seen = try JSONDecoder().decode(
                LoadServerReport.self, from: Data(server.end().drop { $0 != "{" }.utf8))
            #expect(seen.accepted == 200 && seen.bytes == 2 * 200 * 128 && seen.open == 0 && seen.reset == 0)
        }
        #expect(proxy.destinations.isEmpty)
        // New ones are captured all the same.
        let new = try lab.load(in: lab.pod, "connect", "--to", "10.77.0.1:7001", "--count", "3")
        #expect(new.status == 0 && proxy.destinations == ["10.77.0.1 7001": 3])
    }

    /// A process on the host's network shares the node's own namespace: it is nobody's workload.
    @Test func theNodesOwnNamespaceIsNeverCaptured() throws {
        let cookie = try NetworkNamespace(path: "/proc/self/ns/net").cookie
        let own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)
        defer { close(own) }
        let rules = try shell("ip rule")
        let error = #expect(throws: KernelError.self) {
            try capture.attach(
                lab.name, namespace: own, cookie: cookie, addresses: lab.addresses, listeners: proxy.listeners)
        }
        #expect(error?.description.contains("the node's own") == true, "\(String(describing: error))")
        #expect(capture.workloads.isEmpty)
        #expect(try shell("ip rule") == rules, "it left a rule behind")

        // And with a workload captured, such a process of the hooks' cgroup reaches what it asks for. Loopback would
        // be exempt anyway, so the server has an address of its own.
        try attach()
        let device = "\(lab.id.suffix(11))h"
        try shell("ip link add \(device) type veth peer name h1 netns \(lab.out)")
        defer { _ = try? shell("ip link del \(device)") }
        try shell("ip addr add 198.51.100.1/30 dev \(device)")
        try shell("ip link set \(device) up")
        try shell("ip -n \(lab.out) addr add 198.51.100.2/30 dev h1")
        try shell("ip -n \(lab.out) link set h1 up")
        let server = try lab.loadServer(in: lab.out, echo: "198.51.100.2:7001")
        defer { server.stop() }
        let words = ["sh", "-c", "echo $$ > \(lab.cgroup)/apps/cgroup.procs && exec \"$@\"", "sh"]
        let outcome = try run(
            words + [LoadProgram.path(), "connect", "--to", "198.51.100.2:7001", "--count", "5"])
        let report = try LoadReport(outcome.output)
        #expect(outcome.status == 0 && report.done == 5, "\(report)")
        #expect(proxy.destinations.isEmpty && capture.statistics()[.outboundMarked] == 0)
    }
}
