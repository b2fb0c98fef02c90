import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// The capture programs on this machine's kernel: see `Lab` for the topology. The names P1…P27 are those of the
/// design's test list.
@Suite(.serialized)
final class CaptureTests {
    let lab: Lab
    let capture: KernelCapture
    var proxy: Proxy

    init() throws {
        lab = try Lab()
        do {
            capture = try KernelCapture(options: lab.options)
            proxy = try Proxy(in: lab.namespace(lab.pod))
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

    /// Original destination at the proxy, true addresses at the application, over both families.
    private func checkOutbound() throws {
        for (host, expected, own) in [
            ("192.0.2.1", "192.0.2.1", "10.77.0.2"), ("2001:db8::1", "2001:db8::1", "fd00:77::2"),
            ("::ffff:192.0.2.9", "192.0.2.9", "::ffff:10.77.0.2"),
        ] {
            let seen = try lab.connect(in: lab.pod, host, 80)
            #expect(seen.error == "")
            #expect(seen.peer == host, "getpeername stays what the application asked for")
            #expect(seen.local == own)
            let accepted = try #require(proxy.accept(proxy.outbound))
            #expect(accepted.destination == expected && accepted.port == 80)
            #expect(accepted.source == (own.hasPrefix("::ffff:") ? "10.77.0.2" : own))
            close(accepted.socket)
        }
    }

    /// The client's own address at the application, replies back over lo, over both families.
    private func checkLeg() throws {
        for (client, own, shown) in [
            ("198.51.100.7", lab.v4, "::ffff:198.51.100.7 ::ffff:10.77.0.2"),
            ("2001:db8::77", lab.v6, "2001:db8::77 fd00:77::2"),
        ] {
            let answer = try Proxy.converse(
                in: lab.namespace(lab.pod), from: #require(IPAddress(client)), to: own, port: 8080, text: "hello")
            #expect(answer == "\(shown)|hello")
        }
    }

    @Test func outboundConnectionsReachTheProxyWithTheirDestination_P1() throws {
        try lab.attach(capture, proxy)
        try checkOutbound()
        let statistics = capture.statistics()
        #expect(statistics[.outboundMarked] == 3 && statistics[.outboundSteered] == 3)
    }

    @Test func aRuleWithoutPreferredSourceWouldShowTheWrongSource_P2() throws {
        // Not our code: shows why the route names a source.
        try shell("ip -n \(lab.pod) rule add fwmark 7 lookup 77")
        try shell("ip -n \(lab.pod) route add local default dev lo table 77")
        try lab.serve(in: lab.pod, port: 8080)
        let seen = try lab.connect(in: lab.pod, "192.0.2.1", 8080, "mark=7")
        #expect(seen.local != "10.77.0.2")
    }

    @Test func theApplicationSeesTheClientsAddress_P7() throws {
        try lab.serve(in: lab.pod, port: 8080)
        try lab.attach(capture, proxy)
        try checkLeg()
    }

    @Test func synCookiesChangeNothing_P9() throws {
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.tcp_syncookies=2")
        try lab.serve(in: lab.pod, port: 8080)
        try lab.attach(capture, proxy)
        try checkOutbound()
        try checkLeg()
    }

    @Test func selfCallsAndLoopbackStayLocal_P10() throws {
        try lab.serve(in: lab.pod, port: 8080)
        try lab.attach(capture, proxy)
        for host in ["10.77.0.2", "fd00:77::2", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            let seen = try lab.connect(in: lab.pod, host, 8080, "text=me")
            #expect(seen.answer.hasSuffix("|me"), "\(host): \(seen)")
        }
        let bound = try lab.connect(in: lab.pod, "10.77.0.2", 8080, "text=me", "device=e0")
        #expect(bound.answer.hasSuffix("|me"))
        #expect(proxy.accept(proxy.outbound + proxy.inbound) == nil)
    }

    @Test func boundSourcesDevicesAndMultipathAreCaptured_P6() throws {
        try lab.attach(capture, proxy)
        for option in ["bind=10.77.0.2", "device=e0", "protocol=262", "mark=9"] {
            let seen = try lab.connect(in: lab.pod, "192.0.2.1", 443, option)
            #expect(seen.error == "", "\(option)")
            let accepted = try #require(proxy.accept(proxy.outbound), "\(option) escaped capture")
            #expect(accepted.destination == "192.0.2.1" && accepted.source == "10.77.0.2")
            close(accepted.socket)
        }
        #expect(capture.statistics()[.deviceCleared] == 1)
    }

    @Test func anEmptySlotRefusesAtOnceAndNeverReachesTheApplication_P27() throws {
        try lab.serve(in: lab.pod, port: 8080)
        try lab.serve(in: lab.out, port: 8080)
        try lab.attach(capture, proxy)
        proxy.close()
        for host in ["10.77.0.1", "fd00:77::1", "::ffff:10.77.0.1"] {
            let seen = try lab.connect(in: lab.pod, host, 8080, "text=secret")
            #expect(seen.error == "ECONNREFUSED" && seen.answer == "", "\(host)")
            #expect(seen.seconds < 1)
        }
        for host in ["10.77.0.2", "fd00:77::2"] {
            let seen = try lab.connect(in: lab.out, host, 8080, "text=secret")
            #expect(seen.error == "ECONNREFUSED" && seen.answer == "", "\(host)")
            #expect(seen.seconds < 1)
        }
        let statistics = capture.statistics()
        #expect(statistics[.refusedNoListener] == 3 && statistics[.droppedNoListener] == 2)
    }

    @Test func connectionsFromOutsideReachTheirListener() throws {
        try lab.serve(in: lab.pod, port: 8080)
        try lab.attach(capture, proxy)
        for (host, client) in [("10.77.0.2", "10.77.0.1"), ("fd00:77::2", "fd00:77::1")] {
            #expect(try lab.connect(in: lab.out, host, 8080).error == "")
            let plain = try #require(proxy.accept(proxy.inbound))
            #expect(plain.destination == host && plain.port == 8080 && plain.source == client)
            #expect(try lab.connect(in: lab.out, host, 15008).error == "")
            let tunnel = try #require(proxy.accept(proxy.tunnel))
            #expect(tunnel.destination == host && tunnel.port == 15008 && tunnel.source == client)
            // The proxy's own ports are no way around: from outside they are inbound like any other.
            #expect(try lab.connect(in: lab.out, host, 15001).error == "")
            let direct = try #require(proxy.accept(proxy.inbound))
            #expect(direct.port == 15001)
            #expect(proxy.accept(proxy.outbound) == nil)
            for accepted in [plain, tunnel, direct] { close(accepted.socket) }
        }
    }

    @Test func theKernelSpreadsConnectionsOverAReusePortGroup() throws {
        proxy.close()
        proxy = try Proxy(in: lab.namespace(lab.pod), cores: 2)
        try lab.attach(capture, proxy)
        for port in UInt16(2000)..<2024 { #expect(try lab.connect(in: lab.pod, "192.0.2.1", port).error == "") }
        let taken = proxy.outbound.map { listener in
            var count = 0
            while let accepted = proxy.accept([listener]) {
                close(accepted.socket)
                count += 1
            }
            return count
        }
        #expect(taken.reduce(0, +) == 24)
        #expect(taken.allSatisfy { $0 > 0 }, "\(taken)")
    }

    @Test func acceptedSocketsBehaveAsIfNeverSteered_P3() throws {
        try lab.attach(capture, proxy)
        _ = try lab.connect(in: lab.out, "10.77.0.2", 8080, "text=12345")
        let accepted = try #require(proxy.accept(proxy.inbound))
        var waiting: Int32 = 0
        var ready = pollfd(fd: accepted.socket, events: Int16(POLLIN), revents: 0)
        #expect(poll(&ready, 1, 5000) == 1)
        #expect(ioctl(accepted.socket, UInt(FIONREAD), &waiting) == 0 && waiting == 5)
        close(accepted.socket)
    }

    @Test func otherNamespacesOfTheCgroupAreUntouched() throws {
        try lab.serve(in: lab.pod, port: 8080)
        let before = try lab.connect(in: lab.out, "10.77.0.2", 8080, "text=direct")
        #expect(before.answer.hasSuffix("|direct"))
        try lab.serve(in: lab.out, port: 8081)
        try lab.attach(capture, proxy)
        let seen = try lab.connect(in: lab.out, "10.77.0.1", 8081, "text=direct")
        #expect(seen.answer.hasSuffix("|direct"))
        #expect(capture.statistics()[.outboundMarked] == 0)
    }

    @Test func aFamilyWithoutAnOwnAddressIsRefusedRatherThanLetOut() throws {
        try lab.serve(in: lab.out, port: 8080)
        try lab.attach(capture, proxy, addresses: [lab.v4])
        #expect(try lab.connect(in: lab.pod, "fd00:77::1", 8080).error == "ENETUNREACH")
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "")
        let statistics = capture.statistics()
        #expect(statistics[.refusedNoAddress] == 1 && statistics[.outboundMarked] == 1)
    }
}
