import Foundation
import Testing

@testable import MeshKernel

/// The pure part: from checks to levels and tiers.
struct PreflightReportTests {
    private typealias Check = PreflightReport.Check
    private typealias Use = PreflightReport.Use

    private static let machine = PreflightReport.Machine(
        kernel: "6.1.0-18-amd64", architecture: "x86_64", distribution: "Debian GNU/Linux 12")

    /// A machine where all is well but what is named: id to status and who needs it.
    private func report(
        offered: [PreflightReport.Use] = PreflightReport.Use.allCases,
        _ checks: (String, PreflightReport.Status, [Use])...
    ) -> PreflightReport {
        PreflightReport(
            machine: Self.machine, offered: offered,
            checks: [Check(.kernel, "all", "all", .ok, "", neededBy: Use.allCases)]
                + checks.map { Check(.behaviour, $0.0, $0.0, $0.1, "", neededBy: $0.2) })
    }

    @Test func theBestLevelWithoutAFailureIsReached() {
        #expect(report().level == .l0 && report().verdict == .usable)
        let withoutDevice = report(("device", .fail, [.l0]))
        #expect(withoutDevice.level == .l1 && withoutDevice.possibleLevel == .l1)
        #expect(withoutDevice.fitness(.l0) == .init(use: .l0, verdict: .unusable, reasons: ["device"]))
        #expect(report(("lookup", .fail, [.l0, .l1])).level == .l2)
        #expect(report(("bpf", .fail, [.l0, .l1, .l2])).level == .l3)
        let none = report(("admin", .fail, [.l0, .l1, .l2, .l3]))
        #expect(none.level == nil && none.possibleLevel == nil && none.verdict == .unusable)
    }

    @Test func warningsAndChecksNobodyNeedsTakeNothing() {
        let report = report(("a", .warn, [.l0, .t2]), ("b", .fail, []), ("c", .unknown, []))
        #expect(report.level == .l0 && report.fitness(.t2).verdict == .usable)
    }

    @Test func whatIsUnknownIsNeitherReachedNorLost() {
        let doubtful = report(("a", .unknown, [.l0]))
        #expect(doubtful.level == .l1 && doubtful.possibleLevel == .l0 && doubtful.verdict == .usable)
        let dark = report(("a", .unknown, [.l0, .l1, .l2, .l3]))
        #expect(dark.level == nil && dark.possibleLevel == .l0 && dark.verdict == .unknown)
        #expect(dark.fitness(.l2) == .init(use: .l2, verdict: .unknown, reasons: ["a"]))
        // A failure outweighs what is not known.
        let lost = report(("a", .unknown, [.l0]), ("b", .fail, [.l0]))
        #expect(lost.fitness(.l0) == .init(use: .l0, verdict: .unusable, reasons: ["b"]))
    }

    @Test func onlyLevelsTheNodeHasCount() {
        let report = report(offered: [.l0], ("bpf", .fail, [.l0, .l1, .l2]))
        #expect(report.level == nil && report.verdict == .unusable)
        #expect(report.fitness(.l3).verdict == .usable)
    }

    @Test func tiersStandOnLevelsAndOnEachOther() {
        #expect(report().fitness(.t1).verdict == .usable && report().fitness(.t2).verdict == .usable)
        // T1 works at L1 as well.
        #expect(report(("device", .fail, [.l0])).fitness(.t1).verdict == .usable)
        let low = report(("lookup", .fail, [.l0, .l1]))
        #expect(low.fitness(.t1) == .init(use: .t1, verdict: .unusable, reasons: ["lookup"]))
        let undying = report(("destroy", .fail, [.t1]), ("count", .fail, [.t2]))
        #expect(undying.fitness(.t1).reasons == ["destroy"])
        #expect(undying.fitness(.t2) == .init(use: .t2, verdict: .unusable, reasons: ["count", "destroy"]))
        let doubtful = report(("destroy", .unknown, [.t1]))
        #expect(doubtful.fitness(.t2) == .init(use: .t2, verdict: .unknown, reasons: ["destroy"]))
    }

    @Test(arguments: CaptureLevel.allCases)
    func aGateAsksForALevelOrBetter(_ required: CaptureLevel) {
        let reached = report(("lookup", .fail, [.l0, .l1]))
        #expect(reached.meets(required) == (required >= .l2 ? .usable : .unusable))
        let doubtful = report(("device", .unknown, [.l0]), ("lookup", .fail, [.l1]))
        #expect(doubtful.meets(required) == (required >= .l2 ? .usable : .unknown))
    }

    /// Scripts read these words.
    @Test func theJSONHasStableNames() throws {
        let report = report(offered: [.l0], ("device", .fail, [.l0]))
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        let text = String(decoding: try encoder.encode(report), as: UTF8.self)
        let object = try #require(JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
        #expect(Set(object.keys) == ["machine", "offered", "checks", "uses", "verdict"])
        #expect(object["verdict"] as? String == "unusable" && object["offered"] as? [String] == ["L0"])
        let checks = try #require(object["checks"] as? [[String: Any]])
        #expect(
            Set(checks[1].keys) == ["group", "id", "title", "status", "detail", "cost", "remedy", "neededBy"])
        #expect(checks[1]["neededBy"] as? [String] == ["L0"] && checks[1]["group"] as? String == "behaviour")
        let uses = try #require(object["uses"] as? [[String: Any]])
        #expect(uses.map { $0["use"] as? String } == ["L0", "L1", "L2", "L3", "T1", "T2"])
        #expect(try JSONDecoder().decode(PreflightReport.self, from: Data(text.utf8)) == report)
    }
}

/// What remedies depend on.
struct PreflightMachineTests {
    @Test(arguments: [
        ("6.1.0-18-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)", "ID=debian", "debian"),
        ("6.8.0-45-generic", "#45-Ubuntu SMP PREEMPT_DYNAMIC", "ID=ubuntu\nID_LIKE=debian", "ubuntu"),
        ("5.14.0-427.el9.x86_64", "#1 SMP PREEMPT_DYNAMIC", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", "rhel"),
        ("6.1.79-99.amzn2023.x86_64", "#1 SMP", "ID=\"amzn\"\nID_LIKE=\"fedora\"", "amazon"),
        ("6.1.79", "#1 SMP", "ID=\"amzn\"\nID_LIKE=\"fedora\"", "amazon"),
        ("6.6.60-flatcar", "#1 SMP", "ID=flatcar\nID_LIKE=coreos", "flatcar"),
        ("6.12.6-talos", "#1 SMP", "ID=talos", "talos"), ("6.1.102", "#1 SMP", "ID=bottlerocket", "bottlerocket"),
        ("6.1.112+", "#1 SMP", "ID=cos", "cos"),
        ("6.1.0", "#1 SMP", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"", "ubuntu"),
        ("6.12.1-arch1-1", "#1 SMP", "ID=arch", "other"), ("6.12.1", "#1 SMP", "", "other"),
        // A Debian container on an Amazon kernel: the host's kernel is what counts.
        ("6.1.79-99.amzn2023.x86_64", "#1 SMP", "ID=debian", "amazon"),
    ])
    func theDistributionIsRecognised(_ release: String, _ version: String, _ text: String, _ expected: String) {
        let found = Distribution.recognise(release: release, version: version, osRelease: OSRelease(parsing: text))
        #expect(found.rawValue == expected)
    }

    @Test(arguments: Distribution.allCases)
    func everyDistributionHasItsRemedies(_ distribution: Distribution) {
        let remedies = [
            Remedy.newerKernel("5.17", distribution), Remedy.option("CONFIG_X", since: "5.17", distribution),
            Remedy.module("nf_tables", distribution), Remedy.nftProgram(distribution),
            Remedy.unifiedCgroups(distribution), Remedy.permitBPF(distribution),
        ]
        #expect(remedies.allSatisfy { !$0.isEmpty })
        #expect(remedies[0].contains("5.17") || distribution == .amazon && remedies[0].contains("5.15"))
        #expect(!distribution.isImmutable || !remedies.contains { $0.contains("apt-get") || $0.contains("dnf") })
    }

    @Test func versionsKnowTheirFixes() throws {
        let fixed = [KernelVersion(6, 1, 125), KernelVersion(6, 12, 6), KernelVersion(6, 13)]
        let expected = [
            "6.1.0-18-cloud-amd64": false, "6.1.125": true, "6.1.140-1": true, "6.12.5": false, "6.12.6-talos": true,
            "6.8.0-45-generic": false, "6.13.0": true, "6.18.44-fc": true, "7.1": true, "5.10.240": false,
        ]
        for (text, has) in expected {
            #expect(try #require(KernelVersion(text)).includes(fixedIn: fixed) == has, "\(text)")
        }
        #expect(KernelVersion("mainline") == nil && KernelVersion("6") == nil)
    }

    @Test(arguments: [
        ("6.1.0-56-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-11-01)", "", "6.1.192"),
        ("6.12.9+bpo-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.9-1~bpo12+1 (2025-01-19)", "", "6.12.9"),
        ("6.8.0-45-generic", "#45-Ubuntu SMP PREEMPT_DYNAMIC", "Ubuntu 6.8.0-45.45-generic 6.8.12\n", "6.8.12"),
        ("6.18.44-fc", "#1 SMP PREEMPT_DYNAMIC @0", "", "6.18.44"),
        ("6.1.0-custom", "#1 SMP Debian", "Ubuntu", "6.1.0"),
    ])
    func theMainlineVersionIsFound(_ release: String, _ version: String, _ signature: String, _ expected: String) throws
    {
        #expect(KernelVersion(release: release, version: version, signature: signature)?.description == expected)
    }

    @Test func theConfigurationKnowsBuiltInsAndModules() {
        let text = "# CONFIG_TLS is not set\nCONFIG_BPF_SYSCALL=y\nCONFIG_NF_TABLES=m\nCONFIG_HZ=250\nCONFIG_A=\"y\"\n"
        let configuration = KernelConfiguration(path: "/x", text: text)
        #expect(configuration.has("BPF_SYSCALL") && configuration.has("NF_TABLES"))
        #expect(
            !configuration.has("TLS") && !configuration.has("HZ") && !configuration.has("BPF")
                && !configuration.has("A"))
    }
}
