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

    /// All that a daemon may change, as other programs see it, by what it is.
    private func everything() throws -> [String: String] {
        var found: [String: String] = [:]
        for namespace in [lab.pod, lab.out] {
            found["rules, routes and filters of \(namespace)"] = try lab.surroundings(of: namespace)
            found["listeners of \(namespace)"] = try shell("ip netns exec \(namespace) ss -Hltun")
            found["settings of \(namespace)"] = try shell("ip netns exec \(namespace) sysctl -a --pattern ^net\\.")
                .split(separator: "\n").filter { !$0.contains("nf_conntrack") }.joined(separator: "\n")
        }
        found["programs"] = try lab.python(
            in: lab.out, Foreign.census, [lab.cgroup, "/run/netns/\(lab.pod)", "/run/netns/\(lab.out)"])
        found["pins"] = try shell("find \(lab.bpffs)")
        found["cgroups"] = try shell("find \(lab.cgroup) -type d")
        found["run directory"] = Files.names(in: lab.options.runtimeDirectory).joined(separator: " ")
        return found
    }

    @Test(arguments: CaptureLevel.allCases, [true, false])
    func everythingIsAsBefore(level: CaptureLevel, killed: Bool) async throws {
        // Values that are not the kernel's own come back as well.
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.fwmark_reflect=1")
        try shell("ip -n \(lab.pod) rule add fwmark 0x77 lookup 77")
        let before = try everything()
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
        let during = try everything()
        // The comparison sees what capture changes, or it would prove nothing.
        var changed = ["rules, routes and filters of \(lab.pod)", "settings of \(lab.pod)", "run directory"]
        if level == .l2 { changed.append("cgroups") }
        if level <= .l1 { changed += ["programs", "pins", "cgroups"] }
        for part in changed { #expect(during[part] != before[part], "\(part) did not change") }

        try NodeCapture.uninstall(options: lab.options)
        let after = try everything()
        for (part, text) in before { #expect(after[part] == text, "\(part)") }
        try NodeCapture.uninstall(options: lab.options)
    }
}
