import Foundation
import Testing

/// Another real kernel: Debian's 6.1 in qemu, the same programs and tests inside. Each test boots once; see
/// Tools/run-in-kernel, which runs any command there by hand.
@Suite(.serialized)
struct KernelRunTests {
    /// How many tests a run of `swift test` inside passed; 0 when it did not pass.
    private func passed(_ output: String) -> Int {
        guard let match = output.firstMatch(of: /Test run with (\d+) tests? in \d+ suites? passed/) else { return 0 }
        return Int(match.1) ?? 0
    }

    /// What Tools/node.bash saw: a node proxy with two workloads, from start to uninstall.
    private func checkNode(_ run: GuestRun, level: String, refusal: String, noAcceleration: String) throws {
        let node = try run.part("node")
        #expect(node.status == 0)
        let lines = node.output.split(separator: "\n").map(String.init)
        for expected in [
            "ready: ready", "status: capture level \(level)", "call: 10.66.0.3 said hello",
            #"metrics: culvert_capture_events_total{event=direct} 1 culvert_capture_events_total{event=direct_passed} 1"#,
            "without a proxy: \(refusal)", "uninstall: nothing of node guest is left on this machine",
            "without a mesh: 10.66.0.3 said hello", "shop: as before", "client: as before",
        ] {
            #expect(lines.contains(expected), "\(expected) is not in \(node.output)")
        }
        #expect(lines.contains { $0.contains("acceleration: sockmap is not possible here: \(noAcceleration)") })
    }

    @Test("6.1 as it is: preflight says L0; capture at every level, direct connections and uninstall work")
    func asItIs() async throws {
        let run = try await GuestRun("as-it-is.bash", limit: 900)
        #expect(try run.part("release").output.hasPrefix("6.1."))

        let report = try run.report("preflight")
        #expect(report.status == 0 && report.level == "L0" && report.verdict == "usable", "\(report)")
        #expect(report.ids("fail") == ["fionread"] && report.ids("unknown") == [])
        #expect(try report.check("sockmap.memory").status == "ok")
        #expect(try report.check("btf").status == "ok")
        #expect(try report.check("cgroup2").detail.contains("version 2 alone"))

        #expect(try report.use("T1") == "usable", "\(report)")
        // Its release says 6.1.0.
        let fixes = try report.check("sockmap.fixes")
        #expect(fixes.status == "ok" && !fixes.detail.hasPrefix("6.1.0 "), "\(fixes)")
        // Redirected bytes are not counted on 6.1, with the verdict program neither.
        #expect(try report.use("T2") == "unusable")
        #expect(try report.check("fionread").detail.hasPrefix("5 of 5 bytes by wire and 0 of 5 bytes redirected"))
        #expect(try !report.check("fionread").remedy.contains("Debian 12 (Linux 6.1) or later"))

        // tls is a module there that loads itself. A program of our own shows what preflight says.
        #expect(try run.part("ktls").output == "works")
        #expect(try report.check("ktls").detail.hasPrefix("TLS 1.3 with AES-128-GCM, both ways"))

        try checkNode(run, level: "L0", refusal: "ConnectionRefusedError 111", noAcceleration: "FIONREAD")

        let suites = try run.part("suites")
        #expect(suites.status == 0 && passed(suites.output) == 10, "\(suites.output)")
        for suite in ["LevelTests", "DNSCaptureTests", "DirectTests", "AccelerateTests"] {
            #expect(suites.output.contains("Suite \(suite) passed"), "\(suite) did not run")
        }
    }

    @Test("features hidden by hand: preflight names each and what to do")
    func hidden() async throws {
        let run = try await GuestRun("hidden.bash", limit: 400)
        let unfiltered = try run.report("without-nft")
        #expect(unfiltered.status == 0 && unfiltered.level == "L0", "\(unfiltered)")
        let nft = try unfiltered.check("nft")
        #expect(nft.status == "fail" && nft.remedy.contains("modprobe nf_tables"), "\(nft)")
        for level in ["L2", "L3"] { #expect(try unfiltered.use(level) == "unusable", "\(level)") }

        // Rules of the packet filter need no bpf(2); nothing works without the other one.
        for (capability, level) in [("bpf", "L3"), ("net_admin", nil)] {
            let name = "CAP_\(capability.uppercased())"
            let report = try run.report("without-\(capability)")
            let check = try report.check("capability.\(name)")
            #expect(check.status == "fail" && check.remedy.contains("grant \(name)"), "\(check)")
            #expect(report.level == level && report.status == (level == nil ? 1 : 0), "\(report)")
            #expect(try report.use("T1") == "unusable")
        }

        let nobody = try run.report("nobody")
        #expect(nobody.status == 3 && nobody.level == nil && nobody.verdict == "unknown", "\(nobody)")
        #expect(try nobody.check("capability.CAP_BPF").remedy.contains("as root"))
        #expect(nobody.ids("fail") == [], "lacking rights say nothing about the machine")

        let namespaces = try run.report("without-namespaces")
        #expect(namespaces.status == 1 && namespaces.level == nil, "\(namespaces)")
        let scratch = try namespaces.check("namespace")
        #expect(scratch.status == "fail" && scratch.remedy.contains("user.max_net_namespaces"), "\(scratch)")

        let legacy = try run.report("legacy-cgroups")
        #expect(legacy.status == 1 && legacy.level == "L3", "L0 was required: \(legacy)")
        let cgroup2 = try legacy.check("cgroup2")
        #expect(cgroup2.status == "fail" && cgroup2.remedy.contains("systemd.unified_cgroup_hierarchy=1"), "\(cgroup2)")
        let bpffs = try legacy.check("bpffs")
        #expect(bpffs.status == "fail" && bpffs.remedy == "mount -t bpf -o mode=0700 bpf /sys/fs/bpf", "\(bpffs)")

        let hybrid = try run.report("hybrid-cgroups")
        #expect(hybrid.status == 0 && hybrid.level == "L0", "\(hybrid)")
        #expect(try hybrid.check("cgroup2").detail.hasPrefix("/sys/fs/cgroup/unified (hybrid"))
    }

    @Test("booted without IPv6, tls and tcp_diag and under lockdown: still L0, and IPv4 is captured")
    func withoutIPv6() async throws {
        let run = try await GuestRun(
            "without-ipv6.bash",
            kernelWords: ["ipv6.disable=1", "module_blacklist=tls,tcp_diag", "lockdown=confidentiality"], limit: 400)
        #expect(try run.part("lockdown").output.contains("[confidentiality]"))
        #expect(try run.part("ipv6").status == 1, "the kernel has IPv6 all the same")
        #expect(try run.part("ktls").output.hasPrefix("TCP_ULP: "))

        let report = try run.report("preflight")
        #expect(report.status == 0 && report.level == "L0", "\(report)")
        #expect(try report.check("lockdown").detail.hasPrefix("confidentiality"))
        #expect(try report.check("ktls").detail.hasPrefix("absent"))
        let destroy = try report.check("sockdestroy")
        #expect(destroy.status == "fail" && destroy.remedy.contains("tcp_diag"), "\(destroy)")
        #expect(try report.use("T1") == "unusable", "a direct connection could not be ended")
        let ipv6 = try report.check("ipv6")
        #expect(ipv6.status == "warn" && ipv6.remedy.contains("ipv6.disable=1"), "\(ipv6)")

        let suites = try run.part("suites")
        #expect(suites.status == 0 && passed(suites.output) == 3, "\(suites.output)")
    }

    /// Deploy/packages fetches it where Debian still has it.
    private static let has510: Bool = {
        let tool = Process()
        tool.executableURL = GuestRun.tools.appendingPathComponent("kernel-image")
        tool.arguments = ["5.10", "--there"]
        tool.standardOutput = FileHandle.nullDevice
        guard (try? tool.run()) != nil else { return false }
        tool.waitUntilExit()
        return tool.terminationStatus == 0
    }()

    /// sk_lookup tells no arrival device there, sockets no cookie of their namespace, hooks cannot choose an error, and
    /// programs cannot fetch what they add to.
    @Test(
        "5.10: L1 without the help of later kernels, L2 and L3; T1",
        .enabled(if: has510, "there is no 5.10 kernel: Tests/KernelRunTests/Tools/kernel-image 5.10"))
    func older() async throws {
        let run = try await GuestRun("older.bash", kernel: "5.10", limit: 900)
        #expect(try run.part("release").output.hasPrefix("5.10."))

        let report = try run.report("preflight")
        #expect(report.status == 0 && report.level == "L1" && report.verdict == "usable", "\(report)")
        #expect(try report.check("capture").status == "ok")
        for (use, verdict) in [
            "L0": "unusable", "L1": "usable", "L2": "usable", "L3": "usable", "T1": "usable", "T2": "unusable",
        ] {
            #expect(try report.use(use) == verdict, "\(use)")
        }
        // The verifier says EACCES, and means the kernel's age.
        let device = try report.check("program.device")
        #expect(device.status == "fail" && device.remedy.contains("5.17") && !device.remedy.contains("privileged"))
        #expect(try report.check("bpf.retval").status == "warn")

        try checkNode(
            run, level: "L1", refusal: "PermissionError 1",
            noAcceleration: "the kernel does not charge bytes that were handed over to their receiver")

        let suites = try run.part("suites")
        #expect(suites.status == 0 && passed(suites.output) == 6, "\(suites.output)")
        // Each at three levels: a list of levels that nobody reads would pass without a single one.
        #expect(suites.output.ranges(of: "with 3 test cases passed").count == 6, "\(suites.output)")
    }

    @Test("a part without its end is no result")
    func parsing() {
        let parts = GuestRun.parse("noise\n##begin a\none\ntwo\n\n##end a 3\n##begin b\nlost\n##begin c\n\n##end c 0\n")
        #expect(parts["a"]?.status == 3 && parts["a"]?.output == "one\ntwo")
        #expect(parts["b"] == nil && parts["c"]?.output == "")
    }

    @Test("a guest that hangs is killed, one that dies is told, and both show the console")
    func endings() async throws {
        let program = GuestRun.tools.appendingPathComponent("run-in-kernel").path
        let hang = try await command([program, "--timeout", "20", "sleep", "1000"])
        #expect(hang.status == 124 && hang.errors.contains("killed after 20 s"), "\(hang)")
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("culvert-ending-\(getpid())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let ended = try await command([
            "/usr/bin/env", "TMPDIR=\(folder.path)", "timeout", "-k", "20", "10", program, "sleep", "1000",
        ])
        #expect(ended.status == 124, "it did not end when it was asked to: \(ended)")
        let left = try FileManager.default.contentsOfDirectory(atPath: folder.path)
        #expect(left == [])
        let panic = try await command([program, "--timeout", "120", "sh", "-c", "echo c >/proc/sysrq-trigger"])
        #expect(panic.status == 125 && panic.errors.contains("sysrq triggered crash"), "\(panic)")
        let status = try await command([program, "--timeout", "120", "sh", "-c", "echo out; exit 7"])
        #expect(status.status == 7 && status.output == "out\n", "\(status)")
        let nonsense = try await command([program, "--nonsense", "true"])
        #expect(nonsense.status == 125 && nonsense.errors.contains("--nonsense"), "\(nonsense)")
    }
}
