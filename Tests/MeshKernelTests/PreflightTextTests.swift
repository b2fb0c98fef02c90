import MeshKernel
import Testing

@testable import culvert

/// What an operator reads.
struct PreflightTextTests {
    private typealias Check = PreflightReport.Check

    private func text(_ checks: [Check], required: CaptureLevel? = nil) -> [String] {
        let machine = PreflightReport.Machine(
            kernel: "5.4.0-1", architecture: "x86_64", distribution: "Ubuntu 20.04.6 LTS")
        let report = PreflightReport(machine: machine, offered: [.l0, .l3, .t1], checks: checks)
        return PreflightText(color: false, required: required).render(report).split(
            separator: "\n", omittingEmptySubsequences: false
        ).map(String.init)
    }

    @Test func checksStandInGroupsWithCostAndRemedyBelow() {
        let lines = text([
            Check(.limits, "files", "open files", .warn, "at most 20000", cost: "two each", remedy: "raise it"),
            Check(.kernel, "lookup", "lookup", .fail, "absent", remedy: "a newer kernel", neededBy: [.l0, .l1]),
            Check(.kernel, "btf", "types", .ok, "there", cost: "unsaid", remedy: "unsaid"),
        ])
        #expect(
            lines == [
                "Linux 5.4.0-1 x86_64, Ubuntu 20.04.6 LTS", "", "kernel", "  FAIL     lookup      absent",
                "                       costs: L0, L1", "                       do:    a newer kernel",
                "  ok       types       there", "", "limits", "  warn     open files  at most 20000",
                "                       costs: two each", "                       do:    raise it", "", "result",
                "  This machine can run culvert-node at level L3: nft alone.",
                "  FAIL     L0  mark and sk_lookup: lost for: lookup",
                "  warn     L1  mark and sk_lookup with pass table: lost for: lookup",
                "  ok       L2  connect rewrite and nft: usable here, but this version of culvert-node does not have it",
                "  ok       L3  nft alone: usable",
                "  warn     T1  same-node connections without a proxy: lost for: lookup",
                "  warn     T2  same-node bytes around TCP, by workload: lost for: lookup", "", "  For L0:",
                "    lookup: a newer kernel",
            ])
    }

    @Test func whatCouldNotBeTriedForOneReasonIsOneLine() {
        let all = PreflightReport.Use.allCases
        let lines = text(
            ["a", "b"].map {
                Check(.programs, $0, "try \($0)", .unknown, "not tried", remedy: "be root", neededBy: all)
            },
            required: .l0)
        #expect(lines.contains("  unknown  2 checks   not tried"))
        #expect(lines.contains("                      these: try a, try b"))
        #expect(lines.filter { $0.contains("be root") }.count == 2)
        #expect(lines.contains("    try a, try b: be root"))
        #expect(lines.contains("  Could not find out whether this machine can run culvert-node."))
        #expect(lines.contains("  unknown  L0  mark and sk_lookup: not known: 2 checks could not be made"))
        #expect(lines.last == "  Required: L0 or better: could not be found out.")
    }

    @Test func longFindingsAreBrokenBetweenWords() {
        #expect(PreflightText.wrapped("do:    one two three", to: 14) == ["do:    one two", "       three"])
        #expect(PreflightText.wrapped("short", to: 14) == ["short"])
        #expect(PreflightText.wrapped("/a/path/that/is/longer", to: 10) == ["/a/path/that/is/longer"])
    }

    @Test func noLevelIsSaidPlainlyWithWhatToDo() {
        let lines = text([
            Check(
                .privileges, "admin", "CAP_NET_ADMIN", .fail, "absent", remedy: "grant it",
                neededBy: [.l0, .l1, .l2, .l3])
        ])
        #expect(lines.contains("  This machine cannot run culvert-node yet: no level is usable."))
        #expect(lines.suffix(2) == ["  For L0:", "    CAP_NET_ADMIN: grant it"])
    }
}
