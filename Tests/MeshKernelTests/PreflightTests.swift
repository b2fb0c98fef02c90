import Glibc
import MeshModel
import Testing

@testable import MeshKernel

struct PreflightTests {
    @Test func thisMachineIsProbedAndLeftAsItWas() throws {
        let lab = try Lab()
        defer { lab.tearDown() }
        let report = Preflight.run(lab.options)
        #expect(report.verdict == .usable && report.level == .l0, "\(report.checks.filter { $0.status != .ok })")
        #expect(report.checks.first { $0.id == "capture" }?.status == .ok)
        #expect(Set(report.checks.map(\.id)).count == report.checks.count)
        #expect(Files.names(in: lab.cgroup).filter { $0.hasPrefix("culvert") }.isEmpty)
        #expect(!Files.names(in: lab.bpffs).contains("culvert"))
    }

    @Test func whatIsMissingComesWithItsRemedy() throws {
        let report = Preflight.run(CaptureOptions(nodeName: "x", cgroupPath: "/nowhere", bpffsPath: "/tmp"))
        #expect(report.fitness(.l0).verdict == .unusable && report.level != .l0)
        let bpffs = try #require(report.checks.first { $0.id == "bpffs" })
        #expect(bpffs.status == .fail && bpffs.remedy == "mount -t bpf -o mode=0700 bpf /tmp")
        #expect(report.checks.first { $0.id == "cgroup2" }?.status == .fail)
        #expect(throws: KernelError.self) {
            try Preflight.validate(CaptureOptions(nodeName: "x", cgroupPath: "/nowhere"))
        }
    }
}

struct ParsingTests {
    @Test func cgroup2MountsAreFoundInMountinfo() {
        let text = """
            25 30 0:23 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
            26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
            27 25 0:25 /docker/x /mnt/cg rw - cgroup2 none rw
            garbage
            """
        #expect(
            CgroupMount.parse(text) == [
                CgroupMount(path: "/sys/fs/cgroup/unified", root: "/"), CgroupMount(path: "/mnt/cg", root: "/docker/x"),
            ])
    }

    @Test func base64IsThatOfRFC4648() {
        #expect(decodeBase64("") == [])
        #expect(decodeBase64("Zg==") == Array("f".utf8))
        #expect(decodeBase64("Zm9vYg==") == Array("foob".utf8))
        #expect(decodeBase64("Zm9vYmFy") == Array("foobar".utf8))
        #expect(decodeBase64("+/8=") == [0xfb, 0xff])
    }

    @Test func addressesTakeTheFormTheProgramsCompare() throws {
        let v4 = try #require(IPAddress("192.0.2.1"))
        let v6 = try #require(IPAddress("2001:db8::ff"))
        let bytes = { (address: IPAddress) in withUnsafeBytes(of: address.abi) { Array($0) } }
        #expect(bytes(v4) == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1])
        #expect(bytes(v6) == [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff])
    }

    @Test func everyEventHasItsWord() {
        #expect(Set(CaptureEvent.allCases.map(\.word)).count == CaptureEvent.allCases.count)
        #expect(CaptureEvent.allCases.count == CaptureStatistics.abiCount)
    }

    @Test func errorsSayWhatWhereWhyAndWhatToDo() {
        let error = KernelError(.system, "writing", at: "/x", code: -EPERM, remedy: "run as root")
        #expect(error.description == "writing (/x): Operation not permitted (EPERM); run as root")
    }
}
