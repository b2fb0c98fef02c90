import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// `culvert preflight` as it is run, on the real kernel, with things taken away from it.
@Suite(.serialized, .timeLimit(.minutes(3)))
struct PreflightCommandTests {
    private let lab: Lab
    private let culvert: String

    init() throws {
        lab = try Lab()
        let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
        culvert = URL(fileURLWithPath: bundle).deletingLastPathComponent().path + "/culvert"
    }

    private struct Ran {
        let status: Int32
        let errors: String
        let report: PreflightReport

        func check(_ id: String) throws -> PreflightReport.Check {
            try #require(report.checks.first { $0.id == id }, "there is no check \(id)")
        }

        func verdicts(_ uses: PreflightReport.Use...) -> [PreflightReport.Verdict] {
            uses.map { report.fitness($0).verdict }
        }
    }

    private var places: [String] { ["--cgroup", lab.cgroup, "--bpffs", lab.bpffs] }

    /// Runs it behind other words (`setpriv`, `unshare`), and reads its JSON.
    private func preflight(behind words: [String] = [], _ options: [String]? = nil) throws -> Ran {
        let outcome = try run(words + [culvert, "preflight", "--output", "json"] + (options ?? places))
        guard let report = try? JSONDecoder().decode(PreflightReport.self, from: Data(outcome.output.utf8)) else {
            throw ShellFailure(description: "no report: status \(outcome.status): \(outcome.errors)")
        }
        return Ran(status: outcome.status, errors: outcome.errors, report: report)
    }

    /// In a mount namespace of its own, after commands that change what it sees.
    private func preflight(after commands: String, _ options: [String]? = nil) throws -> Ran {
        try preflight(
            behind: ["unshare", "-m", "--propagation", "private", "sh", "-ec", "\(commands); exec \"$@\"", "sh"],
            options)
    }

    private func without(_ capabilities: String...) -> [String] {
        ["setpriv", "--bounding-set", capabilities.map { "-\($0)" }.joined(separator: ",")]
    }

    private func attached(
        _ name: String, to cgroup: String, hook: (type: Int, attach: Int) = (18, 10), how: String = "link"
    ) throws -> Background {
        try Background(["python3", "-c", Foreign.attached, "\(hook.type)", "\(hook.attach)", name, cgroup, how])
    }

    // MARK: the machine as it is

    @Test func theWholeMachineIsUsableAndNothingStays() throws {
        defer { lab.tearDown() }
        let ran = try preflight()
        #expect(ran.status == 0 && ran.errors == "" && ran.report.level == .l0)
        #expect(ran.report.checks.allSatisfy { $0.status != .fail && $0.status != .unknown })
        #expect(ran.verdicts(.l0, .l1, .l2, .l3, .t1) == [.usable, .usable, .usable, .usable, .usable])
        for id in ["namespace", "capture", "sockdestroy", "nft", "nft.dns", "attach.cgroup"] {
            #expect(try ran.check(id).status == .ok)
        }
        #expect(Files.names(in: lab.cgroup).filter { $0.hasPrefix("culvert") }.isEmpty)
        #expect(!Files.names(in: lab.bpffs).contains("culvert"))
    }

    /// P12: the verdict is that of an experiment made by other means.
    @Test func sockmapBehaviourIsToldAsItIs() throws {
        defer { lab.tearDown() }
        struct Experiment: Decodable {
            let plain: [Int]
            let verdict: [Int]
        }
        let outcome = try run(["python3", "-c", Foreign.sockmap])
        try #require(outcome.status == 0, "\(outcome.errors)")
        let experiment = try JSONDecoder().decode(Experiment.self, from: Data(outcome.output.utf8))
        let ran = try preflight()
        let counted = try ran.check("fionread")
        let right = [5, 5]
        let isRight = Array(experiment.verdict.prefix(2)) == right
        #expect(counted.status == (isRight ? .ok : .fail))
        let words = "without a verdict program \(experiment.plain[0]) of 5 bytes and \(experiment.plain[1]) of 5 bytes"
        #expect(counted.detail.contains(words) == (Array(experiment.plain.prefix(2)) != right))
        #expect(ran.verdicts(.t2) == [isRight ? .usable : .unusable])
        let spliced = try ran.check("splice")
        #expect(spliced.status == (experiment.plain[2] == 5 ? .ok : .warn))
        print("P12: FIONREAD: \(counted.detail); splice: \(spliced.detail)")
    }

    @Test func kernelTLSIsWhatTheKernelWasBuiltWith() throws {
        defer { lab.tearDown() }
        let built = try #require(
            KernelConfiguration.read(release: PreflightContext(lab.options).machine.kernel).value,
            "no kernel configuration to compare with")
        let detail = try preflight().check("ktls").detail
        #expect(detail.hasPrefix("absent") == !built.has("TLS"))
    }

    // MARK: conflicts (P21)

    @Test func aForeignProgramBeforeOursIsNamed() throws {
        defer { lab.tearDown() }
        let foreign = try attached("cil_sock4_conne", to: lab.cgroup)
        defer { foreign.stop() }
        let ran = try preflight()
        let check = try ran.check("conflict.connect")
        #expect(check.status == .warn && ran.status == 0)
        #expect(
            check.detail
                == "cil_sock4_conne (Cilium's socket load balancer) on connect4 of \(lab.cgroup), runs before ours")
        #expect(check.remedy.contains("socketLB.hostNamespaceOnly=true"))
    }

    @Test func aForeignProgramAfterOursIsNamed() throws {
        let capture = try KernelCapture(options: lab.options)
        defer {
            try? capture.uninstall()
            lab.tearDown()
        }
        let foreign = try attached("other_connect", to: lab.cgroup)
        defer { foreign.stop() }
        let check = try preflight().check("conflict.connect")
        #expect(check.detail == "other_connect on connect4 of \(lab.cgroup), runs after ours")
        #expect(check.remedy.contains("bpftool cgroup tree"))
    }

    @Test(arguments: [
        ("conflict.connect", "connect6", 18, 11), ("conflict.datagram", "sendmsg4", 18, 14),
        ("conflict.datagram", "recvmsg6", 18, 20), ("conflict.name", "getpeername4", 18, 29),
        ("conflict.sockops", "sock_ops", 13, 3),
    ])
    func everyHookIsLookedAtInCgroupsBelow(_ id: String, _ hook: String, _ type: Int, _ attach: Int) throws {
        defer { lab.tearDown() }
        let foreign = try attached("stranger", to: "\(lab.cgroup)/apps", hook: (type, attach))
        defer { foreign.stop() }
        let ran = try preflight()
        #expect(try ran.check(id).detail == "stranger on \(hook) of \(lab.cgroup)/apps, runs before ours")
        for other in ["conflict.connect", "conflict.datagram", "conflict.name", "conflict.sockops"] where other != id {
            #expect(try ran.check(other).status == .ok)
        }
    }

    @Test func aProgramAttachedAloneKeepsOursOut() throws {
        defer { lab.tearDown() }
        let foreign = try attached("selfish", to: lab.cgroup, how: "alone")
        defer { foreign.stop() }
        let ran = try preflight()
        let attach = try ran.check("attach.cgroup")
        #expect(
            attach.status == .fail && attach.detail.contains("EPERM") && attach.remedy.contains("BPF_F_ALLOW_MULTI"))
        #expect(try ran.check("conflict.connect").detail.hasPrefix("selfish on connect4"))
        #expect(ran.verdicts(.l0, .l2, .l3) == [.unusable, .unusable, .usable])
    }

    @Test func aForeignLookupProgramIsNamedWithItsNamespace() throws {
        defer { lab.tearDown() }
        let foreign = try attached("steerer", to: "/run/netns/\(lab.pod)", hook: (30, 36))
        defer { foreign.stop() }
        let check = try preflight().check("conflict.lookup")
        #expect(check.status == .warn && check.detail.hasPrefix("steerer in net:["))
        #expect(check.detail.hasSuffix("(/run/netns/\(lab.pod))"))
    }

    @Test func rulesThatTakeOurMarksAreNamed() throws {
        defer { lab.tearDown() }
        try shell("ip -n \(lab.pod) rule add fwmark 0xc51 table 99 priority 100")
        try shell("ip -n \(lab.pod) -6 rule add from all table 3152 priority 9")
        // Ours, and one on other bits: neither is worth a word.
        try shell("ip -n \(lab.out) rule add fwmark 0xc50/0xff0 table 3152 priority 3152")
        try shell("ip -n \(lab.out) rule add fwmark 0x200/0xf00 table 2004 priority 9")
        let check = try preflight().check("conflict.rules")
        #expect(check.status == .warn)
        #expect(check.detail.contains("IPv4 rule 100: fwmark 0xc51/0xffffffff table 99 in net:["))
        #expect(check.detail.contains("IPv6 rule 9: fwmark 0x0/0x0 table 3152 in net:["))
        #expect(check.detail.contains("/run/netns/\(lab.pod)") && !check.detail.contains(lab.out))
    }

    @Test func aStrictReversePathFilterIsToldOf() throws {
        defer { lab.tearDown() }
        try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.conf.e0.rp_filter=1")
        let check = try preflight(behind: ["nsenter", "--net=/run/netns/\(lab.pod)"]).check("rp_filter")
        #expect(check.status == .warn && check.detail == "strict on e0")
    }

    /// What the report says of it: the loop's packets keep their route, so no filter looks at them.
    @Test(arguments: [CaptureLevel.l0, .l3])
    func aStrictReversePathFilterDoesNotHurtCapture(_ level: CaptureLevel) throws {
        lab.tearDown()
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            for name in ["all", "default", "lo", "e0"] {
                try shell("ip netns exec \(lab.pod) sysctl -qw net.ipv4.conf.\(name).rp_filter=1")
            }
            try lab.serve(in: lab.pod, port: 8080)
            try fixture.attach()
            let seen = try lab.connect(in: lab.pod, "192.0.2.1", 80)
            #expect(seen.error == "" && seen.peer == "192.0.2.1")
            let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound))
            #expect(accepted.destination == "192.0.2.1")
            close(accepted.socket)
            let answer = try Proxy.converse(
                in: lab.namespace(lab.pod), from: #require(IPAddress("198.51.100.7")), to: lab.v4, port: 8080,
                text: "hello")
            #expect(answer == "::ffff:198.51.100.7 ::ffff:10.77.0.2|hello")
        }
    }

    // MARK: privileges (P25)

    @Test(arguments: ["net_admin", "net_raw", "sys_admin"])
    func withoutACapabilityThatEveryLevelNeedsThereIsNone(_ name: String) throws {
        defer { lab.tearDown() }
        let ran = try preflight(behind: without(name))
        let check = try ran.check("capability.CAP_\(name.uppercased())")
        #expect(check.status == .fail && check.remedy.hasPrefix("grant CAP_\(name.uppercased())"))
        #expect(ran.status == 1 && ran.report.possibleLevel == nil)
        #expect(ran.verdicts(.l0, .l1, .l2, .l3, .t1, .t2).allSatisfy { $0 == .unusable })
    }

    @Test func withoutCAPBPFOnlyNftRemains() throws {
        defer { lab.tearDown() }
        let ran = try preflight(behind: without("bpf"))
        #expect(try ran.check("capability.CAP_BPF").status == .fail)
        #expect(ran.verdicts(.l0, .l1, .l2, .l3, .t1) == [.unusable, .unusable, .unusable, .usable, .unusable])
        #expect(ran.report.fitness(.l0).reasons == ["capability.CAP_BPF"])
    }

    @Test(arguments: ["sys_ptrace", "perfmon", "sys_resource"])
    func aCapabilityThatNoLevelNeedsCostsNone(_ name: String) throws {
        defer { lab.tearDown() }
        let ran = try preflight(behind: without(name))
        let check = try ran.check("capability.CAP_\(name.uppercased())")
        #expect(check.detail.hasPrefix("absent") && check.status != .fail)
        #expect(check.status == .ok || !check.cost.isEmpty)
        #expect(ran.status == 0 && ran.report.level == .l0)
    }

    @Test func withBPFRefusedOnlyNftRemains() throws {
        defer { lab.tearDown() }
        let ran = try preflight(behind: ["python3", "-c", Foreign.withoutBPF])
        let refused = try ran.check("bpf.syscall")
        #expect(refused.status == .fail && refused.detail.contains("EPERM") && refused.detail.contains("seccomp"))
        #expect(try ran.check("capability.CAP_BPF").status == .ok)
        #expect(ran.verdicts(.l0, .l1, .l2, .l3) == [.unusable, .unusable, .unusable, .usable])
    }

    @Test func anOrdinaryUserIsToldWhatCouldNotBeFoundOut() throws {
        defer { lab.tearDown() }
        let user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        let ran = try preflight(behind: user)
        #expect(ran.status == 3 && ran.errors == "" && ran.report.verdict == .unknown)
        #expect(ran.report.level == nil && ran.report.possibleLevel == .l0)
        #expect(ran.report.checks.allSatisfy { $0.status != .fail })
        #expect(try ran.check("capture").detail == "not tried: it needs CAP_SYS_ADMIN and CAP_NET_ADMIN")
        #expect(try ran.check("bpffs").status == .ok)
        #expect(try run(user + [culvert, "preflight", "--require", "L0"] + places).status == 3)
    }

    // MARK: places

    @Test func aHiddenConfigurationCostsNothing() throws {
        defer { lab.tearDown() }
        let ran = try preflight(after: "mount --bind /dev/null /proc/config.gz")
        let check = try ran.check("config")
        #expect(
            check.status == .ok && check.detail.contains("/proc/config.gz: ") && check.detail.contains("not readable"))
        #expect(ran.status == 0 && ran.report.level == .l0)
    }

    @Test func aMissingBPFFileSystemIsAMountAway() throws {
        defer { lab.tearDown() }
        let ran = try preflight(after: "mount -t tmpfs none \(lab.bpffs)")
        let check = try ran.check("bpffs")
        #expect(check.status == .fail && check.remedy == "mount -t bpf -o mode=0700 bpf \(lab.bpffs)")
        #expect(ran.verdicts(.l0, .l1, .l2, .l3) == [.unusable, .unusable, .unusable, .usable])
        #expect(ran.report.fitness(.l0).reasons == ["bpffs"])
    }

    @Test func withoutCgroup2ThereAreNoHooks() throws {
        defer { lab.tearDown() }
        let mount = try #require(CgroupMount.holding(lab.cgroup)).path
        let ran = try preflight(after: "umount \(mount)", ["--bpffs", lab.bpffs])
        let check = try ran.check("cgroup2")
        #expect(check.status == .fail && check.detail.contains("cgroup2 is not mounted") && check.remedy != "")
        #expect(ran.verdicts(.l0, .l2, .l3) == [.unusable, .unusable, .usable])
    }

    @Test func aPrivateCgroupNamespaceShowsTooLittle() throws {
        defer { lab.tearDown() }
        let mount = try #require(CgroupMount.holding(lab.cgroup)).path
        let inside = [
            "sh", "-ec", "echo $$ > \(lab.cgroup)/apps/cgroup.procs; exec \"$@\"", "sh", "unshare", "-C", "-m",
            "--propagation", "private", "sh", "-ec",
            "umount \(mount); mount -t cgroup2 none \(mount); exec \"$@\"", "sh",
        ]
        let ran = try preflight(behind: inside, ["--bpffs", lab.bpffs])
        let check = try ran.check("cgroup.namespace")
        #expect(check.status == .fail && check.remedy.contains("host's cgroup2"))
        #expect(ran.report.fitness(.l0).reasons == ["cgroup.namespace"])
        // Named on purpose, the part is what was meant.
        #expect(try preflight(behind: inside, ["--bpffs", lab.bpffs, "--cgroup", mount]).report.level == .l0)
    }

    @Test func withoutTheNftProgramTheLowerLevelsAreLost() throws {
        defer { lab.tearDown() }
        let nft = try run(["sh", "-c", "command -v nft"]).output.trimmingCharacters(in: .whitespacesAndNewlines)
        let real = try #require(Files.realPath(nft))
        let ran = try preflight(after: "mount --bind /dev/null \(real)")
        let check = try ran.check("nft")
        #expect(check.status == .fail && check.detail == "there is no nft program" && check.remedy.contains("nftables"))
        #expect(ran.verdicts(.l0, .l1, .l2, .l3) == [.usable, .usable, .unusable, .unusable])
        #expect(ran.status == 0)
    }

    /// The filter of a kernel without zones of the connection table.
    @Test func aPacketFilterWithoutZonesCostsDNSAlone() throws {
        defer { lab.tearDown() }
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../EndToEndTests/Tools/without_zones").path
        let ran = try preflight(behind: ["env", "PATH=\(folder):\(String(cString: getenv("PATH")))"])
        let check = try ran.check("nft.dns")
        #expect(check.status == .warn && check.cost.contains("only DNS by TCP"), "\(check)")
        #expect(check.detail.contains("Operation not supported") && check.remedy.contains("nf_conntrack_netlink"))
        #expect(try ran.check("nft").status == .ok)
        #expect(ran.verdicts(.l0, .l1, .l2, .l3) == [.usable, .usable, .usable, .usable])
    }

    /// As Preflight.md says: in a container with these capabilities and these mounts, and nothing else of the host's.
    @Test func inAContainerWithWhatTheDocumentationNamesTheLevelIsTheMachines() throws {
        defer { lab.tearDown() }
        let root = "\(lab.bpffs)root"
        defer { rmdir(root) }
        let programs = URL(fileURLWithPath: culvert).deletingLastPathComponent().path
        let container = """
            mkdir -p \(root); mount -t tmpfs none \(root); cd \(root)
            mkdir -p bin proc sys tmp run
            for d in usr lib lib64 etc opt \(programs); do
                mkdir -p ./$d; mount --rbind -o ro /$d ./$d
            done
            cp /bin/sh bin/; mount -t proc none proc; mount -t sysfs none sys
            mount --rbind /sys/fs/cgroup sys/fs/cgroup
            mkdir -p .\(lab.bpffs); mount --bind \(lab.bpffs) .\(lab.bpffs)
            """
        let ran = try preflight(
            behind: [
                "unshare", "-m", "-u", "-i", "-p", "--fork", "--propagation", "private", "sh", "-ec",
                "\(container); exec chroot . setpriv --bounding-set \"$@\"", "sh",
                "-all,+bpf,+net_admin,+net_raw,+sys_admin,+sys_ptrace",
            ])
        #expect(ran.status == 0 && ran.report.level == .l0)
        #expect(ran.report.checks.filter { $0.status == .fail }.isEmpty)
        #expect(ran.verdicts(.l0, .l1, .l2, .l3, .t1) == [.usable, .usable, .usable, .usable, .usable])
    }

    // MARK: limits and settings

    @Test func fewOpenFilesAreToldOf() throws {
        defer { lab.tearDown() }
        let check = try preflight(behind: ["prlimit", "--nofile=1024:1024"]).check("limit.files")
        #expect(check.status == .warn && check.detail == "at most 1024" && check.remedy.contains("LimitNOFILE"))
        // Where eBPF counts as memory of the cgroup (5.11) this limit does not matter.
        let memory = try preflight(behind: ["prlimit", "--memlock=65536:65536"]).check("limit.memlock")
        #expect(memory.status == .ok && memory.detail.hasPrefix("at most 65536; eBPF counts"))
    }

    @Test(arguments: [
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "0", "sysctl.unprivileged_bpf", "warn", "every user may load"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "1", "sysctl.unprivileged_bpf", "ok", "off until the next boot"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "2", "sysctl.unprivileged_bpf", "ok", "off; no matter"),
        ("/proc/sys/net/core/bpf_jit_harden", "2", "sysctl.bpf_jit_harden", "ok", "also root's"),
        ("/proc/sys/net/core/bpf_jit_harden", "0", "sysctl.bpf_jit_harden", "ok", "full speed"),
    ])
    func settingsAreReadAndExplained(
        _ file: String, _ value: String, _ id: String, _ status: String, _ words: String
    ) throws {
        defer { lab.tearDown() }
        let check = try preflight(
            after: "mount -t tmpfs none /mnt; echo \(value) >/mnt/value; mount --bind /mnt/value \(file)"
        ).check(id)
        #expect(check.status.rawValue == status && check.detail.contains(words), "\(check.detail)")
        #expect((check.status == .ok) == check.remedy.isEmpty)
    }

    /// This kernel has no SELinux: its files are made up.
    @Test(arguments: [
        ("1", "system_u:system_r:container_t:s0:c1,c2", "warn", "container_t:s0:c1,c2, which may not use bpf"),
        ("1", "system_u:system_r:spc_t:s0", "ok", "enforcing; this process is system_u:system_r:spc_t:s0"),
        ("0", "system_u:system_r:container_t:s0", "ok", "permissive"),
    ])
    func SELinuxIsToldWithWhatThisProcessIs(
        _ enforce: String, _ label: String, _ status: String, _ words: String
    ) throws {
        defer { lab.tearDown() }
        let check = try preflight(
            after: """
                mount -t tmpfs none /mnt; mkdir /mnt/fs; mount --rbind /sys/fs /mnt/fs; mount -t tmpfs none /sys/fs
                mkdir /sys/fs/cgroup /sys/fs/selinux; mount --rbind /mnt/fs/cgroup /sys/fs/cgroup
                echo \(enforce) >/sys/fs/selinux/enforce
                echo \(label) >/mnt/label; mount --bind /mnt/label /proc/$$/attr/current
                """
        ).check("selinux")
        #expect(check.status.rawValue == status && check.detail.contains(words), "\(check.detail)")
        #expect(check.status == .ok || check.remedy.contains("spc_t"))
    }

    @Test(arguments: [
        ("bpfin.cali", "warn", "Calico with its eBPF data plane"), ("cali1", "ok", "Calico"),
        ("cilium_x", "ok", "Cilium"), ("kube-ipvs0", "ok", "IPVS"),
    ])
    func theContainerNetworkIsKnownByItsInterfaces(_ name: String, _ status: String, _ words: String) throws {
        defer { lab.tearDown() }
        try shell("ip -n \(lab.pod) link add \(name) type veth peer name stub")
        let check = try preflight(
            behind: [
                "nsenter", "--net=/run/netns/\(lab.pod)", "unshare", "-m", "--propagation", "private", "sh", "-ec",
                "mount -t sysfs none /mnt; mount --bind /mnt/class/net /sys/class/net; exec \"$@\"", "sh",
            ]
        ).check("cni")
        #expect(check.status.rawValue == status && check.detail.contains(words), "\(check.detail)")
        #expect(check.status == .ok || check.remedy.contains("bpfConnectTimeLoadBalancing"))
    }

    // MARK: usage

    @Test func aGateFailsWhereTheLevelIsWorse() throws {
        defer { lab.tearDown() }
        for level in ["L0", "L3"] {
            #expect(try run([culvert, "preflight", "--require", level] + places).status == 0)
        }
        let low = try run(without("bpf") + [culvert, "preflight", "--require", "L0"] + places)
        #expect(low.status == 1 && low.output.contains("Required: L0 or better: not reached."))
    }

    @Test(arguments: [
        (["--require", "L9"], "L9"), (["--require", "l0"], "l0"),
        (["--cgroup", "/nowhere"], "there is no such directory"),
        (["--cgroup", "/tmp"], "it is not on a cgroup2 file system"), (["--output", "xml"], "xml"),
    ])
    func badUsageSaysWhatIsWrong(_ arguments: [String], _ words: String) throws {
        defer { lab.tearDown() }
        let outcome = try run([culvert, "preflight"] + arguments)
        #expect(outcome.status == 2 && outcome.output == "")
        #expect(outcome.errors.contains(words), "\(outcome.errors)")
    }
}

extension Result where Failure == KernelConfiguration.Absence {
    fileprivate var value: Success? { try? get() }
}
