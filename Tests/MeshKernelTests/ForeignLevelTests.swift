import Glibc
import Testing

@testable import MeshKernel

/// Another program at the connect hooks, at every level: `ForeignConnectTests` has what is particular to direct
/// connections.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct ForeignLevelTests {
    /// With another program at the applications' cgroup, which runs before ours, or at its parent, which runs after it.
    private func with(
        _ level: CaptureLevel, first: Bool, _ arguments: [String], _ body: (LevelFixture) throws -> Void
    ) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            try shell("ip -n \(lab.out) addr add 192.0.2.2/32 dev lo")
            try fixture.attach()
            try lab.serve(in: lab.out, port: 8081)
            let cgroup = first ? "\(lab.cgroup)/apps" : lab.cgroup
            let foreign = try Background(["python3", "-c", Foreign.connecting, cgroup] + arguments)
            defer { foreign.stop() }
            try body(fixture)
        }
    }

    @Test(arguments: CaptureLevel.allCases, [true, false])
    func aRefusalStands(level: CaptureLevel, first: Bool) throws {
        try with(level, first: first, ["deny"]) { fixture in
            for host in ["192.0.2.1", "2001:db8::1"] {
                let seen = try fixture.lab.connect(in: fixture.lab.pod, host, 80)
                #expect(seen.error == "EPERM", "\(host): \(seen)")
            }
            #expect(fixture.proxy.accept(fixture.proxy.outbound) == nil)
        }
    }

    @Test(arguments: CaptureLevel.allCases, [true, false])
    func theProxyLearnsWhereTheConnectionGoes(level: CaptureLevel, first: Bool) throws {
        try with(level, first: first, ["192.0.2.1", "80", "192.0.2.2", "8081"]) { fixture in
            #expect(try fixture.lab.connect(in: fixture.lab.pod, "192.0.2.1", 80, "send=secret").error == "")
            let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound), "it went around the proxy")
            close(accepted.socket)
            // At L2 a program behind ours sees a connection to the listener, and has nothing to change.
            let isUnseen = level == .l2 && !first
            #expect(accepted.destination == (isUnseen ? "192.0.2.1" : "192.0.2.2"))
            #expect(accepted.port == (isUnseen ? 80 : 8081))
        }
    }

    /// Hooks that have let a connection go do not see it again; rules see what leaves.
    @Test(arguments: CaptureLevel.allCases) func loopbackThatIsSentOut(level: CaptureLevel) throws {
        try with(level, first: false, ["127.0.0.1", "80", "192.0.2.2", "8081"]) { fixture in
            let seen = try fixture.lab.connect(in: fixture.lab.pod, "127.0.0.1", 80, "text=secret")
            let accepted = fixture.proxy.accept(fixture.proxy.outbound)
            if let accepted { close(accepted.socket) }
            switch level {
            case .l0, .l1: #expect(seen.answer.hasSuffix("|secret") && accepted == nil, "the known gap: \(seen)")
            case .l2: #expect(seen.error == "ECONNREFUSED" && accepted == nil, "\(seen)")
            case .l3: #expect(seen.answer.isEmpty && accepted?.destination == "192.0.2.2", "\(seen)")
            }
        }
    }
}
