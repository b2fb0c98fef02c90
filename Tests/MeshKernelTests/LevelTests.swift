import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// What capture promises at every level, on this machine's kernel: see `Lab` for the topology. The names P1…P27 are
/// those of the design's test list. Where levels differ, the test says how.
@Suite(.serialized, .timeLimit(.minutes(4)))
struct LevelTests {
    /// All, but on a kernel that cannot do them all those that CULVERT_TEST_LEVELS names (`L1 L2 L3`).
    static let levels = CaptureLevel.allCases.filter { level in
        getenv("CULVERT_TEST_LEVELS").map { String(cString: $0).contains("\(level)") } ?? true
    }

    /// Original destination at the proxy, true addresses at the application, over both families.
    private func checkOutbound(_ fixture: LevelFixture) throws {
        let (lab, proxy) = (fixture.lab, try #require(fixture.proxy))
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
    private func checkLeg(_ lab: Lab) throws {
        for (client, own, shown) in [
            ("198.51.100.7", lab.v4, "::ffff:198.51.100.7 ::ffff:10.77.0.2"),
            ("2001:db8::77", lab.v6, "2001:db8::77 fd00:77::2"),
        ] {
            let answer = try Proxy.converse(
                in: lab.namespace(lab.pod), from: #require(IPAddress(client)), to: own, port: 8080, text: "hello")
            #expect(answer == "\(shown)|hello")
        }
    }

    @Test(arguments: levels)
    func outboundConnectionsReachTheProxyWithTheirDestination_P1(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            try fixture.attach()
            try checkOutbound(fixture)
            guard let statistics = fixture.capture.statistics() else { return }
            #expect(statistics[.outboundMarked] == 3 && statistics[.outboundSteered] == (level <= .l1 ? 3 : 0))
        }
    }

    @Test(arguments: levels)
    func theApplicationSeesTheClientsAddress_P7(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            try fixture.lab.serve(in: fixture.lab.pod, port: 8080)
            try fixture.attach()
            try checkLeg(fixture.lab)
        }
    }

    @Test(arguments: levels)
    func synCookiesChangeNothing_P9(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            try shell("ip netns exec \(fixture.lab.pod) sysctl -qw net.ipv4.tcp_syncookies=2")
            try fixture.lab.serve(in: fixture.lab.pod, port: 8080)
            try fixture.attach()
            try checkOutbound(fixture)
            try checkLeg(fixture.lab)
        }
    }

    @Test(arguments: levels)
    func selfCallsAndLoopbackStayLocal_P10(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let (lab, proxy) = (fixture.lab, try #require(fixture.proxy))
            try lab.serve(in: lab.pod, port: 8080)
            try fixture.attach()
            for host in ["10.77.0.2", "fd00:77::2", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
                let seen = try lab.connect(in: lab.pod, host, 8080, "text=me")
                #expect(seen.answer.hasSuffix("|me"), "\(host): \(seen)")
            }
            let bound = try lab.connect(in: lab.pod, "10.77.0.2", 8080, "text=me", "device=e0")
            #expect(bound.answer.hasSuffix("|me"))
            #expect(proxy.accept(proxy.outbound + proxy.inbound) == nil)
        }
    }

    @Test(arguments: levels)
    func boundSourcesDevicesAndMultipathAreCaptured_P6(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let (lab, proxy) = (fixture.lab, try #require(fixture.proxy))
            try fixture.attach()
            // Multipath TCP where the kernel has it.
            let multipath = access("/proc/sys/net/mptcp", F_OK) == 0 ? ["protocol=262"] : []
            let options = ["bind=10.77.0.2", "device=e0", "mark=9"] + multipath
            for option in options {
                let seen = try lab.connect(in: lab.pod, "192.0.2.1", 443, option)
                #expect(seen.error == "", "\(option)")
                let accepted = try #require(proxy.accept(proxy.outbound), "\(option) escaped capture")
                #expect(accepted.destination == "192.0.2.1" && accepted.source == "10.77.0.2")
                close(accepted.socket)
            }
            // The programs take the device away; rules lead to an address that is reached through it.
            if let statistics = fixture.capture.programs?.statistics() { #expect(statistics[.deviceCleared] == 1) }
        }
    }

    @Test(arguments: levels)
    func anAbsentProxyRefusesAtOnceAndNothingReachesTheApplication_P27(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            try lab.serve(in: lab.pod, port: 8080)
            try lab.serve(in: lab.out, port: 8080)
            try fixture.attach()
            fixture.proxy.close()
            for host in ["10.77.0.1", "fd00:77::1", "::ffff:10.77.0.1"] {
                let seen = try lab.connect(in: lab.pod, host, 8080, "text=secret")
                #expect(seen.error == fixture.refusal("ECONNREFUSED") && seen.answer == "", "\(host)")
                #expect(seen.seconds < 1)
            }
            for host in ["10.77.0.2", "fd00:77::2"] {
                let seen = try lab.connect(in: lab.out, host, 8080, "text=secret")
                #expect(seen.error == "ECONNREFUSED" && seen.answer == "", "\(host)")
                #expect(seen.seconds < 1)
            }
            guard let statistics = fixture.capture.programs?.statistics() else { return }
            #expect(statistics[.refusedNoListener] == 3 && statistics[.droppedNoListener] == 2)
        }
    }

    @Test(arguments: levels)
    func connectionsFromOutsideReachTheirListener(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let (lab, proxy) = (fixture.lab, try #require(fixture.proxy))
            try lab.serve(in: lab.pod, port: 8080)
            try fixture.attach()
            for (host, client) in [("10.77.0.2", "10.77.0.1"), ("fd00:77::2", "fd00:77::1")] {
                let seen = try lab.connect(in: lab.out, host, 8080)
                #expect(seen.error == "" && seen.peer == host)
                let plain = try #require(proxy.accept(proxy.inbound))
                #expect(plain.destination == host && plain.port == 8080 && plain.source == client)
                #expect(try lab.connect(in: lab.out, host, 15008).error == "")
                let tunnel = try #require(proxy.accept(proxy.tunnel))
                #expect(tunnel.destination == host && tunnel.port == 15008 && tunnel.source == client)
                // The proxy's own ports are no way around: from outside they are inbound like any other.
                for port in [UInt16(15001), 15006] {
                    #expect(try lab.connect(in: lab.out, host, port).error == "")
                    let direct = try #require(proxy.accept(proxy.inbound))
                    #expect(direct.port == port)
                    close(direct.socket)
                }
                #expect(proxy.accept(proxy.outbound) == nil)
                for accepted in [plain, tunnel] { close(accepted.socket) }
            }
        }
    }

    @Test(arguments: levels)
    func connectionsFromBeforeAreUntouched_P5(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            for namespace in [lab.pod, lab.out] { try lab.serve(in: namespace, port: 8080) }
            let clients = try [
                Client(in: lab.namespace(lab.pod), to: "10.77.0.1", 8080),
                Client(in: lab.namespace(lab.pod), to: "fd00:77::1", 8080),
                Client(in: lab.namespace(lab.out), to: "10.77.0.2", 8080),
                Client(in: lab.namespace(lab.out), to: "fd00:77::2", 8080),
            ]
            defer { for client in clients { client.close() } }
            try fixture.attach()
            for client in clients {
                client.say("before and after")
                client.finish()
                #expect(client.answer().hasSuffix("|before and after"))
            }
            let proxy = try #require(fixture.proxy)
            #expect(proxy.accept(proxy.outbound + proxy.inbound) == nil)
        }
    }

    @Test(arguments: levels)
    func otherNamespacesAreUntouched(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            try lab.serve(in: lab.pod, port: 8080)
            let before = try lab.connect(in: lab.out, "10.77.0.2", 8080, "text=direct")
            #expect(before.answer.hasSuffix("|direct"))
            try lab.serve(in: lab.out, port: 8081)
            try fixture.attach()
            let seen = try lab.connect(in: lab.out, "10.77.0.1", 8081, "text=direct")
            #expect(seen.answer.hasSuffix("|direct"))
            if let statistics = fixture.capture.programs?.statistics() { #expect(statistics[.outboundMarked] == 0) }
        }
    }

    @Test(arguments: levels)
    func aFamilyWithoutAnOwnAddressIsRefusedRatherThanLetOut(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            try lab.serve(in: lab.out, port: 8080)
            try fixture.attach(addresses: [lab.v4])
            // Rules can only answer with a reset.
            let error = level == .l3 ? "ECONNREFUSED" : fixture.refusal("ENETUNREACH", atLevels: [.l0, .l1, .l2])
            #expect(try lab.connect(in: lab.pod, "fd00:77::1", 8080).error == error)
            #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "")
            guard let statistics = fixture.capture.statistics() else { return }
            #expect(statistics[.refusedNoAddress] == 1 && statistics[.outboundMarked] == 1)
        }
    }

    @Test(arguments: levels)
    func captureOutlivesItsDaemonAndTheNextOneTakesItOver_P18(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.fwmark_reflect=1")
            try lab.serve(in: lab.out, port: 8080)
            let before = try fixture.surroundings()
            #expect(try !fixture.attach())
            #expect(try fixture.surroundings() != before)
            fixture.kill()
            for host in ["10.77.0.1", "fd00:77::1"] {
                let seen = try lab.connect(in: lab.pod, host, 8080, "text=secret")
                #expect(seen.error == fixture.refusal("ECONNREFUSED"))
            }
            try fixture.begin()
            #expect(fixture.capture.adoptable == [lab.name])
            #expect(fixture.capture.sweep(keeping: [lab.name]).isEmpty)
            #expect(try fixture.attach() && fixture.capture.adoptable.isEmpty)
            #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "")
            let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound))
            #expect(accepted.destination == "10.77.0.1")
            close(accepted.socket)
            try fixture.capture.detach(lab.name)
            try fixture.capture.detach(lab.name)
            #expect(try fixture.surroundings() == before, "the first daemon's memory of the settings was kept")
            let direct = try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=direct")
            #expect(direct.answer.hasSuffix("|direct"))
        }
    }

    @Test(arguments: levels)
    func whatIsNoLongerWantedIsLetGoAndADeadDaemonsRestIsRemoved_P22(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let before = try fixture.surroundings()
            try fixture.attach()
            fixture.kill()
            try fixture.begin()
            #expect(fixture.capture.sweep(keeping: []) == [fixture.lab.name])
            #expect(try fixture.surroundings() == before && fixture.capture.workloads.isEmpty)
            try fixture.attach()
            #expect(throws: KernelError.self) { try NodeCapture.uninstall(options: fixture.lab.options) }
            fixture.kill()
            try NodeCapture.uninstall(options: fixture.lab.options)
            #expect(try fixture.surroundings() == before)
            #expect(Files.names(in: "\(fixture.lab.bpffs)/culvert").isEmpty)
            #expect(Files.inode("\(fixture.lab.options.runtimeDirectory)/\(fixture.lab.options.nodeName)") == nil)
        }
    }

    @Test(arguments: levels)
    func addressesChangeWithoutDetaching(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            try fixture.attach(addresses: [lab.v4])
            try shell("ip -n \(lab.pod) addr add 10.77.0.3/24 dev e0")
            #expect(try !fixture.attach(addresses: [#require(IPAddress("10.77.0.3")), lab.v6]))
            // The routes of L0 and L1 choose the source, the others leave it to the namespace's own routes.
            let seen = try lab.connect(in: lab.pod, "192.0.2.1", 80)
            #expect(seen.error == "" && seen.local == (level >= .l2 ? "10.77.0.2" : "10.77.0.3"))
            #expect(try lab.connect(in: lab.pod, "2001:db8::1", 80).error == "")
        }
    }

    @Test(arguments: levels)
    func anotherNodesNamespaceIsRefused(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            try fixture.attach()
            let during = try fixture.surroundings()
            var options = fixture.lab.options
            options.nodeName = "\(fixture.lab.id)-other"
            let other = try NodeCapture(options: options, level: level)
            #expect {
                try fixture.lab.withDescriptor(fixture.lab.pod) { descriptor in
                    try other.attach(
                        fixture.lab.name, namespace: descriptor, addresses: fixture.lab.addresses,
                        listeners: fixture.proxy.listeners)
                }
            } throws: { ($0 as? KernelError)?.kind == .alreadyCaptured }
            #expect(other.workloads.isEmpty)
            try other.uninstall()
            #expect(try fixture.surroundings() == during)
        }
    }

    @Test(arguments: levels)
    func aFailedCaptureLeavesNothing(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let before = try fixture.surroundings()
            let foreign = try #require(IPAddress("10.99.0.9"))
            #expect {
                try fixture.attach(addresses: [foreign])
            } throws: { ($0 as? KernelError)?.kind == .addressMissing(foreign) }
            #expect { try fixture.attach(addresses: []) } throws: { ($0 as? KernelError)?.kind == .badRequest }
            #expect {
                try fixture.capture.attach(
                    fixture.lab.name, namespace: 0, addresses: fixture.lab.addresses,
                    listeners: fixture.proxy.listeners)
            } throws: { ($0 as? KernelError)?.kind == .namespaceMissing }
            #expect(try fixture.surroundings() == before && fixture.capture.workloads.isEmpty)
        }
    }

    @Test func aNodeDoesNotChangeItsLevelOverCapturedWorkloads() throws {
        for (first, second) in [(CaptureLevel.l0, CaptureLevel.l3), (.l3, .l0), (.l1, .l2), (.l2, .l3)] {
            try LevelFixture.with(first) { fixture in
                try fixture.attach()
                fixture.kill()
                #expect {
                    _ = try NodeCapture(options: fixture.lab.options, level: second)
                } throws: { error in
                    (error as? KernelError)?.kind == .levelUnavailable(second)
                        && "\(error)".contains("culvert uninstall")
                }
                // Left to choose, it stays.
                #expect(try NodeCapture(options: fixture.lab.options).level == (first == .l1 ? .l0 : first))
                try NodeCapture.uninstall(options: fixture.lab.options)
                #expect(try NodeCapture(options: fixture.lab.options, level: second).level == second)
                try NodeCapture.uninstall(options: fixture.lab.options)
            }
        }
    }
}
