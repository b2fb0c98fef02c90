import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// After `culvert uninstall` the machine is as it was before the daemon came.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class UninstallTests {
    let lab: Lab

    init() throws { lab = try Lab() }
    deinit { lab.tearDown() }

    @Test(arguments: CaptureLevel.allCases, [true, false])
    func everythingIsAsBefore(level: CaptureLevel, killed: Bool) async throws {
        // Values that are not the kernel's own come back as well.
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.fwmark_reflect=1")
        try shell("ip -n \(lab.pod) rule add fwmark 0x77 lookup 77")
        let before = try lab.everything()
        let daemon = LabDaemon(lab, level: level)
        if killed {
            await #expect(processExitsWith: .signal(SIGKILL)) { [daemon = daemon as LabDaemon] in
                try daemon.capture(thenKilled: true)
            }
        } else {
            await #expect(processExitsWith: .success) { [daemon = daemon as LabDaemon] in
                try daemon.capture(thenKilled: false)
            }
        }
        let during = try lab.everything()
        // The comparison sees what capture changes, or it would prove nothing.
        var changed = ["rules, routes and filters of \(lab.pod)", "settings of \(lab.pod)", "run directory"]
        if level == .l2 { changed.append("cgroups") }
        if level <= .l1 { changed += ["programs", "pins", "cgroups"] }
        for part in changed { #expect(during[part] != before[part], "\(part) did not change") }

        try NodeCapture.uninstall(options: lab.options)
        let after = try lab.everything()
        for (part, text) in before { #expect(after[part] == text, "\(part)") }
        try NodeCapture.uninstall(options: lab.options)
    }

    /// Rules, services, flows and shortcuts go with the rest; what they allowed goes on by TCP.
    @Test func nothingOfOpenDirectConnectionsStays() throws {
        var before: [String: String] = [:]
        let mesh = try AccelerateLab(
            acceleration: AccelerationFitness(obstacle: nil)
        ) { before = try $0.everything() }
        try mesh.runAcrossUninstall {
            try fill(mesh)
            mesh.capture = nil
            mesh.callerProxy.close()
            mesh.calledProxy.close()
            try NodeCapture.uninstall(options: mesh.lab.options)
        }
        let after = try mesh.lab.everything()
        for (part, text) in before { #expect(after[part] == text, "\(part)") }
    }

    private func fill(_ mesh: AccelerateLab) throws {
        let capture = try #require(mesh.capture)
        let service = try #require(SocketAddress("192.0.2.1:80"))
        capture.setDirectServices([service: [try #require(SocketAddress("10.77.0.1:8080"))]])
        let (flow, bytes) = try (#require(capture.directFlows().first), mesh.lanes().bytes)
        #expect(flow.isAccelerated && bytes == [1000, 1])
    }
}

extension Lab {
    /// All that a daemon may change, as other programs see it, by what it is.
    fileprivate func everything() throws -> [String: String] {
        var found: [String: String] = [:]
        for namespace in [pod, out] {
            found["rules, routes and filters of \(namespace)"] = try surroundings(of: namespace)
            found["listeners of \(namespace)"] = try shell("ip netns exec \(namespace) ss -Hltun")
            found["settings of \(namespace)"] = try shell("ip netns exec \(namespace) sysctl -a --pattern ^net\\.")
                .split(separator: "\n").filter { !$0.contains("nf_conntrack") }.joined(separator: "\n")
        }
        found["programs"] = try python(in: out, Foreign.census, [cgroup, "/run/netns/\(pod)", "/run/netns/\(out)"])
        found["pins"] = try shell("find \(bpffs)")
        found["cgroups"] = try shell("find \(cgroup) -type d")
        found["run directory"] = Files.names(in: options.runtimeDirectory).joined(separator: " ")
        return found
    }
}
