import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// However a program connects, it is captured. The names P6 and P20 are those of the design's test list.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class ConnectCallTests {
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

    private func attach(addresses: [IPAddress]? = nil) throws {
        let cookie = try lab.cookie(lab.pod)
        try lab.withDescriptor(lab.pod) { descriptor in
            _ = try capture.attach(
                lab.name, namespace: descriptor, cookie: cookie, addresses: addresses ?? lab.addresses,
                listeners: proxy.listeners)
        }
    }

    /// Runs the client in the pod; `before` are words of a shell that it replaces.
    private func call(
        _ how: String, _ host: String, _ port: UInt16 = 443, _ options: String..., before: String = "true"
    ) throws -> Connection {
        let prelude = ["sh", "-c", "\(before) && exec \"$@\"", "sh"]
        let outcome = try run(
            prelude + lab.inside(lab.pod) + ["python3", "-c", Applications.caller, how, host, "\(port)"] + options)
        guard outcome.status == 0 else { throw ShellFailure(description: "\(how): \(outcome.errors)") }
        return try JSONDecoder().decode(Connection.self, from: Data(outcome.output.utf8))
    }

    @Test(arguments: ["plain", "nonblocking", "fastopen", "fastopen-connect", "uring", "uring-worker"])
    func everyWayToConnectIsCaptured_P6(how: String) throws {
        try attach()
        for (host, asked) in [
            ("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("::ffff:192.0.2.2", "192.0.2.2"),
        ] {
            let seen = try call(how, host)
            #expect(seen.error == "" && seen.answer == "hello", "\(how) \(host): \(seen)")
            #expect(seen.peer == host)
            #expect(proxy.destinations["\(asked) 443"] == 1, "\(how) \(host) escaped: \(proxy.destinations)")
        }
        let statistics = capture.statistics()
        #expect(statistics[.outboundMarked] == 3 && statistics[.outboundSteered] == 3)
    }

    @Test(arguments: ["plain", "nonblocking", "fastopen", "uring"])
    func refusalsReachEveryKindOfCaller_P6(how: String) throws {
        try attach(addresses: [lab.v4])
        #expect(try call(how, "2001:db8::1").error == "ENETUNREACH")
        #expect(proxy.destinations.isEmpty)
    }

    /// A client that holds a cookie sends data in its SYN; the proxy's listener knows nothing of it.
    @Test func aFastOpenCookieFromBeforeChangesNothing_P6() throws {
        try shell("ip netns exec \(lab.out) sysctl -qw net.ipv4.tcp_fastopen=3")
        let server = try Background(lab.inside(lab.out) + ["python3", "-c", Applications.fastOpenServer, "8080"])
        defer { server.stop() }
        #expect(try call("fastopen", "10.77.0.1", 8080).answer == "hello")
        let metrics = try shell("ip netns exec \(lab.pod) ip tcp_metrics show")
        try #require(metrics.contains("fo_cookie"), "no cookie was given, so this test shows nothing: \(metrics)")

        try attach()
        for how in ["fastopen", "fastopen-connect"] {
            let seen = try call(how, "10.77.0.1", 8080)
            #expect(seen.error == "" && seen.answer == "hello" && seen.peer == "10.77.0.1", "\(how): \(seen)")
        }
        #expect(proxy.destinations == ["10.77.0.1 8080": 2])
    }

    @Test func aPodWithIPv6OnlyIsCaptured_P6() throws {
        try shell("ip -n \(lab.pod) addr del 10.77.0.2/24 dev e0")
        try attach(addresses: [lab.v6])
        let seen = try call("plain", "2001:db8::1")
        #expect(seen.error == "" && seen.answer == "hello" && seen.local == "fd00:77::2")
        #expect(proxy.destinations == ["2001:db8::1 443": 1])
        for host in ["192.0.2.1", "::ffff:192.0.2.1"] { #expect(try call("plain", host).error == "ENETUNREACH") }
        #expect(proxy.destinations == ["2001:db8::1 443": 1])
    }

    @Test func aPodWithoutIPv6IsCaptured_P6() throws {
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
        try attach(addresses: [lab.v4])
        for host in ["192.0.2.1", "::ffff:192.0.2.1"] {
            let seen = try call("plain", host)
            #expect(seen.error == "" && seen.answer == "hello", "\(host): \(seen)")
        }
        #expect(proxy.destinations == ["192.0.2.1 443": 2])
    }

    /// Before Linux 5.15 a socket with a net_cls class forgot its cgroup of version 2, and hooks of a subtree missed it
    /// (root hooks did not). From then on both are kept, which is what this asserts with hooks of a subtree.
    @Test func aClassOfTrafficControlDoesNotHideAProcess_P20() throws {
        let hierarchy = "/tmp/\(lab.id)cls"
        let group = "\(hierarchy)/\(lab.id)"
        mkdir(hierarchy, 0o755)
        try shell("mount -t cgroup -o net_cls none \(hierarchy)")
        defer {
            rmdir(group)
            _ = try? shell("umount \(hierarchy)")
            rmdir(hierarchy)
        }
        mkdir(group, 0o755)
        try Data("0x100001".utf8).write(to: URL(fileURLWithPath: "\(group)/net_cls.classid"))
        try attach()

        let member = try call("plain", "192.0.2.1", before: "echo $$ >\(group)/cgroup.procs")
        #expect(member.error == "" && member.answer == "hello", "\(member)")
        let late = try call("plain", "192.0.2.2", 443, "join=\(group)")
        #expect(late.error == "" && late.answer == "hello", "\(late)")
        #expect(proxy.destinations == ["192.0.2.1 443": 1, "192.0.2.2 443": 1])
    }
}
