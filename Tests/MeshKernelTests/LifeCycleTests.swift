import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// What stays, what is taken over and what is put back.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class LifeCycleTests {
    let lab: Lab

    init() throws { lab = try Lab() }
    deinit { lab.tearDown() }

    /// Without link-local IPv6: those addresses come up some time after their device.
    private func surroundings() throws -> String {
        var text = ""
        for family in ["-4", "-6"] {
            text += try shell("ip -n \(lab.pod) \(family) rule")
            text += try shell("ip -n \(lab.pod) \(family) route show table all")
        }
        for setting in ["ipv4.tcp_fwmark_accept", "ipv4.fwmark_reflect", "ipv6.fwmark_reflect"] {
            text += try shell("ip netns exec \(lab.pod) sysctl net.\(setting)")
        }
        return text.split(separator: "\n").filter { !$0.contains("fe80:") && !$0.contains("ff00:") }.joined(
            separator: "\n")
    }

    @Test func detachPutsTheNamespaceBack() throws {
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.fwmark_reflect=1")
        let before = try surroundings()
        let capture = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(capture, proxy)
        try lab.attach(capture, proxy)
        #expect(try surroundings() != before)
        try capture.detach(lab.name)
        try capture.detach(lab.name)
        #expect(try surroundings() == before)
        #expect(!Files.names(in: capture.pins.directory).contains { $0.hasPrefix("lookup_") })
        try lab.serve(in: lab.out, port: 8080)
        let direct = try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=direct")
        #expect(direct.answer.hasSuffix("|direct"))
        try capture.uninstall()
        #expect(Files.names(in: "\(lab.bpffs)/culvert").isEmpty)
    }

    @Test func captureOutlivesItsDaemonAndTheNextOneTakesItOver() throws {
        try lab.serve(in: lab.out, port: 8080)
        let before = try surroundings()
        var first: KernelCapture? = try KernelCapture(options: lab.options)
        var proxy = try Proxy(in: lab.namespace(lab.pod))
        let handle = try lab.attach(#require(first), proxy)
        #expect(!handle.adopted)

        // As kill -9 leaves it: every descriptor gone, nothing tidied.
        first = nil
        proxy.close()
        for host in ["10.77.0.1", "fd00:77::1"] {
            let seen = try lab.connect(in: lab.pod, host, 8080, "text=secret")
            #expect(seen.error == "ECONNREFUSED")
        }

        let second = try KernelCapture(options: lab.options)
        #expect(second.adoptable == [lab.name])
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "ECONNREFUSED", "no moment of passing")
        #expect(second.sweep(keeping: [lab.name]).isEmpty)
        proxy = try Proxy(in: lab.namespace(lab.pod))
        let adopted = try lab.attach(second, proxy)
        #expect(adopted.adopted && adopted.slot == handle.slot && second.adoptable.isEmpty)
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "")
        let accepted = try #require(proxy.accept(proxy.outbound))
        #expect(accepted.destination == "10.77.0.1")
        close(accepted.socket)
        try second.detach(lab.name)
        #expect(try surroundings() == before, "the first daemon's memory of the settings was kept")
    }

    @Test func whatIsNoLongerWantedIsLetGo() throws {
        let before = try surroundings()
        var first: KernelCapture? = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(#require(first), proxy)
        first = nil
        proxy.close()
        let second = try KernelCapture(options: lab.options)
        #expect(second.sweep(keeping: []) == [lab.name])
        #expect(try surroundings() == before)
        #expect(second.workloads.isEmpty)
    }

    @Test func aDeadDaemonsCaptureCanBeUninstalled() throws {
        let before = try surroundings()
        var first: KernelCapture? = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(#require(first), proxy)
        #expect(throws: KernelError.self) { try KernelCapture.uninstall(options: lab.options) }
        first = nil
        try KernelCapture.uninstall(options: lab.options)
        #expect(try surroundings() == before)
        #expect(Files.names(in: "\(lab.bpffs)/culvert").isEmpty)
    }

    @Test func addressesChangeWithoutDetaching() throws {
        let capture = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(capture, proxy, addresses: [lab.v4])
        try shell("ip -n \(lab.pod) addr add 10.77.0.3/24 dev e0")
        try lab.attach(capture, proxy, addresses: [#require(IPAddress("10.77.0.3")), lab.v6])
        let seen = try lab.connect(in: lab.pod, "192.0.2.1", 80)
        #expect(seen.local == "10.77.0.3")
        #expect(try lab.connect(in: lab.pod, "2001:db8::1", 80).error == "")
        try capture.uninstall()
    }

    @Test func twoDaemonsOfOneNodeCannotRun() throws {
        let first = try KernelCapture(options: lab.options)
        #expect {
            _ = try KernelCapture(options: self.lab.options)
        } throws: { error in
            (error as? KernelError)?.kind == .alreadyRunning(pid: getpid()) && "\(error)".contains("\(getpid())")
        }
        try first.uninstall()
    }

    @Test func anotherNodesNamespaceIsRefused() throws {
        let first = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(first, proxy)
        var other = lab.options
        other.nodeName = "\(lab.id)-other"
        let second = try KernelCapture(options: other)
        #expect {
            try lab.attach(second, proxy)
        } throws: { ($0 as? KernelError)?.kind == .alreadyCaptured }
        #expect(second.workloads.isEmpty && second.objects.pods.keys.isEmpty)
        try second.uninstall()
        try first.uninstall()
    }

    @Test func badRequestsSayWhatIsWrong() throws {
        let capture = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        let before = try surroundings()
        let foreign = try #require(IPAddress("10.99.0.9"))
        #expect {
            try lab.attach(capture, proxy, addresses: [foreign])
        } throws: { ($0 as? KernelError)?.kind == .addressMissing(foreign) }
        #expect(throws: KernelError.self) { try lab.attach(capture, proxy, addresses: []) }
        #expect {
            try capture.attach(
                lab.name, namespace: 0, cookie: 1, addresses: lab.addresses, listeners: proxy.listeners)
        } throws: { ($0 as? KernelError)?.kind == .namespaceMissing }
        #expect(try surroundings() == before && capture.objects.pods.keys.isEmpty)

        var options = lab.options
        options.nodeName = "\(lab.id)-b"
        options.bpffsPath = "/tmp"
        #expect { _ = try KernelCapture(options: options) } throws: {
            ($0 as? KernelError)?.kind == .bpffsUnavailable && "\($0)".contains("mount -t bpf -o mode=0700 bpf /tmp")
        }
        options = lab.options
        options.nodeName = "\(lab.id)-b"
        options.cgroupPath = "/tmp"
        #expect { _ = try KernelCapture(options: options) } throws: {
            ($0 as? KernelError)?.kind == .cgroupUnavailable
        }
        options.nodeName = "a/b"
        #expect { _ = try KernelCapture(options: options) } throws: { ($0 as? KernelError)?.kind == .badRequest }
        try capture.uninstall()
    }

    @Test func theProxyMovesToACgroupOfItsOwnOnlyWhereItSharesOne() throws {
        let sleeper = try Background(["sh", "-c", "echo ready; exec sleep 60"])
        defer { sleeper.stop() }
        let outside = try ProxyCgroup.settle(process: sleeper.identifier, attachPoint: lab.cgroup, nodeName: "x")
        #expect(outside == ProxyCgroup(id: nil, path: nil, child: nil, previous: nil))

        #expect(Files.write("\(sleeper.identifier)", to: lab.cgroup + "/apps/cgroup.procs") == 0)
        let alone = try ProxyCgroup.settle(process: sleeper.identifier, attachPoint: lab.cgroup, nodeName: "x")
        #expect(alone.id == Files.inode(lab.cgroup + "/apps") && alone.child == nil)

        #expect(Files.write("\(sleeper.identifier)", to: lab.cgroup + "/cgroup.procs") == 0)
        let moved = try ProxyCgroup.settle(process: sleeper.identifier, attachPoint: lab.cgroup, nodeName: "x")
        #expect(
            moved.child == lab.cgroup + "/culvert-node.x" && moved.id == Files.inode(lab.cgroup + "/culvert-node.x"))
        moved.leave(process: sleeper.identifier)
        #expect(Files.inode(lab.cgroup + "/culvert-node.x") == nil)
    }

    @Test func theProxysOwnConnectionsAreExempt() throws {
        try lab.serve(in: lab.out, port: 8080)
        let capture = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(capture, proxy)
        let apps = try #require(Files.inode(lab.cgroup + "/apps"))
        try capture.objects.proxyCgroups.set(1, for: apps)
        let seen = try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=direct")
        #expect(seen.answer.hasSuffix("|direct") && capture.statistics()[.exemptProxy] == 1)
        try capture.uninstall()
    }
}
