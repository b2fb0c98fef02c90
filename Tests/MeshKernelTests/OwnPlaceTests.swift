import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Another user of the machine can neither hold the node's lock nor take the place of its pins and files.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class OwnPlaceTests {
    let lab: Lab
    /// What a user without rights runs.
    private let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]

    init() throws { lab = try Lab() }
    deinit { lab.tearDown() }

    private var options: CaptureOptions { lab.options }
    private var runDirectory: String { options.runtimeDirectory }
    private var nodeDirectory: String { "\(runDirectory)/\(options.nodeName)" }
    private var lockFile: String { NodeLock.path(options) }
    private var base: String { "\(lab.bpffs)/culvert" }

    private func mode(_ path: String) -> mode_t {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mode & 0o7777 : 0
    }

    /// A daemon of the node does not start, nor is anything uninstalled, and both say where and why.
    private func expectRefusal(
        _ kind: KernelError.Kind, _ place: String, _ cause: String, uninstall: Bool = true,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        func isRight(_ error: any Error) -> Bool {
            guard let error = error as? KernelError else { return false }
            return error.kind == kind && error.place == place && error.cause.contains(cause) && error.remedy != ""
        }
        #expect(sourceLocation: sourceLocation) {
            try KernelCapture(options: self.options).uninstall()
        } throws: { isRight($0) }
        // Nor at a lesser level, that is, without being asked for one.
        #expect(sourceLocation: sourceLocation) {
            try NodeCapture(options: self.options).uninstall()
        } throws: { isRight($0) }
        guard uninstall else { return }
        #expect(sourceLocation: sourceLocation) {
            try NodeCapture.uninstall(options: self.options)
        } throws: { isRight($0) }
    }

    /// All is in order again.
    private func expectStart(sourceLocation: SourceLocation = #_sourceLocation) throws {
        try KernelCapture(options: options).uninstall()
        #expect(Files.names(in: lab.bpffs).filter { $0 == "culvert" }.isEmpty, sourceLocation: sourceLocation)
    }

    // MARK: the run directory

    @Test func anotherUserCannotHoldTheLocks() throws {
        // As earlier versions left them.
        for path in [runDirectory, nodeDirectory] { mkdir(path, 0o755) }
        try "1\n".write(toFile: lockFile, atomically: false, encoding: .utf8)
        chmod(lockFile, 0o644)
        #expect(try run(nobody + ["flock", "-n", lockFile, "true"]).status == 0)
        for _ in 0..<2 {
            let capture = try KernelCapture(options: options)
            capture.release()
            for path in [lockFile, nodeDirectory, base, capture.pins.nodeDirectory] {
                let tried = try run(nobody + ["flock", "-n", path, "true"])
                #expect(tried.status != 0 && tried.errors.contains("Permission denied"), "\(path): \(tried)")
                #expect(try run(["flock", "-n", path, "true"]).status == 0, "\(path) is not free")
            }
        }
        #expect(mode(lockFile) == 0o600 && mode(nodeDirectory) == 0o711 && mode(runDirectory) == 0o755)
        try NodeCapture.uninstall(options: options)
    }

    @Test func theLockOfADaemonIsFreeWhenAnotherProcessOfItsNumberIsNot() throws {
        let capture = try KernelCapture(options: options)
        capture.release()
        // Who wrote the file is gone.
        try "4194305\n".write(toFile: lockFile, atomically: false, encoding: .utf8)
        let holder = open(lockFile, O_RDWR | O_CLOEXEC)
        #expect(flock(holder, LOCK_EX | LOCK_NB) == 0)
        #expect {
            _ = try KernelCapture(options: self.options)
        } throws: { ($0 as? KernelError)?.kind == .alreadyRunning(pid: nil) }
        close(holder)
        try NodeCapture.uninstall(options: options)
    }

    @Test func aLockFileThatIsNotOursIsRefused() throws {
        mkdir(runDirectory, 0o755)
        try "".write(toFile: lockFile, atomically: false, encoding: .utf8)
        chown(lockFile, 65534, 65534)
        expectRefusal(.system, lockFile, "belongs to user 65534", uninstall: false)
        unlink(lockFile)

        let precious = "\(runDirectory)/precious"
        try "precious".write(toFile: precious, atomically: false, encoding: .utf8)
        symlink(precious, lockFile)
        expectRefusal(.system, lockFile, "symbolic link", uninstall: false)
        #expect(Files.read(precious).value == "precious")
        unlink(lockFile)

        mkfifo(lockFile, 0o600)
        expectRefusal(.system, lockFile, "no regular file", uninstall: false)
        unlink(lockFile)
        try expectStart()
    }

    @Test func aRunDirectoryThatOthersCanChangeIsRefused() throws {
        mkdir(runDirectory, 0o755)
        for mode in [0o777, 0o1777, 0o775] as [mode_t] {
            chmod(runDirectory, mode)
            expectRefusal(.system, runDirectory, "others than its owner may write there")
        }
        chmod(runDirectory, 0o755)
        chown(runDirectory, 65534, 65534)
        expectRefusal(.system, runDirectory, "belongs to user 65534")
        chown(runDirectory, 0, 0)

        mkdir(nodeDirectory, 0o755)
        chown(nodeDirectory, 65534, 65534)
        expectRefusal(.system, nodeDirectory, "belongs to user 65534")
        rmdir(nodeDirectory)
        symlink("/etc", nodeDirectory)
        expectRefusal(.system, nodeDirectory, "symbolic link")
        unlink(nodeDirectory)
        try expectStart()

        // The operator's own link to the directory is as good as the directory.
        let link = "\(runDirectory).link"
        symlink(runDirectory, link)
        defer { unlink(link) }
        var linked = options
        linked.runtimeDirectory = link
        try KernelCapture(options: linked).uninstall()
    }

    // MARK: the bpffs

    @Test func aPlaceForPinsThatAnotherUserMadeIsRefused() throws {
        chmod(lab.bpffs, 0o1777)
        #expect(try run(nobody + ["mkdir", base]).status == 0)
        expectRefusal(.pinRefused, base, "belongs to user 65534", uninstall: false)
        let check = try #require(Preflight.run(options).checks.first { $0.id == "bpffs" })
        #expect(check.status == .fail && check.detail.contains("belongs to user 65534") && check.remedy != "")
        // An uninstall leaves alone what is there, and says so.
        let node = try Pins(options).nodeDirectory
        #expect(try run(nobody + ["mkdir", node]).status == 0)
        expectRefusal(.pinRefused, base, "belongs to user 65534")
        rmdir(node)
        rmdir(base)

        mkdir(base, 0o700)
        mkdir(node, 0o700)
        chown(node, 65534, 65534)
        expectRefusal(.pinRefused, node, "belongs to user 65534")
        rmdir(node)
        rmdir(base)
        try expectStart()
    }

    @Test func aLinkInThePlaceOfPinsIsNotFollowed() throws {
        chmod(lab.bpffs, 0o1777)
        let target = "/tmp/\(lab.id)target"
        let node = try Pins(options).nodeDirectory
        let inside = target + node.dropFirst(base.count)
        try FileManager.default.createDirectory(atPath: inside, withIntermediateDirectories: true)
        defer { _ = try? shell("rm -rf \(target)") }
        try "precious".write(toFile: "\(inside)/precious", atomically: false, encoding: .utf8)
        #expect(try run(nobody + ["ln", "-s", target, base]).status == 0)
        expectRefusal(.pinRefused, base, "symbolic link")
        #expect(Files.read("\(inside)/precious").value == "precious")
        unlink(base)
        try expectStart()
    }

    @Test func aPlaceForPinsThatOthersCanChangeIsRefused() throws {
        mkdir(base, 0o700)
        chmod(base, 0o777)
        expectRefusal(.pinRefused, base, "others than its owner may write there", uninstall: false)
        // Readable is no danger yet, and is put right.
        chmod(base, 0o755)
        let capture = try KernelCapture(options: options)
        #expect(mode(base) == 0o700 && mode(capture.pins.nodeDirectory) == 0o700)
        try capture.uninstall()
        // Without the sticky bit others can rename what is not theirs.
        chmod(lab.bpffs, 0o777)
        expectRefusal(.pinRefused, lab.bpffs, "others may rename", uninstall: false)
        chmod(lab.bpffs, 0o700)
        try expectStart()
    }

    @Test func preflightWarnsOfABPFFileSystemForEverybody() throws {
        func found() throws -> PreflightReport.Check {
            try #require(Preflight.run(options).checks.first { $0.id == "bpffs" })
        }
        #expect(try found().status == .ok)
        chmod(lab.bpffs, 0o1777)
        let check = try found()
        #expect(check.status == .warn && check.detail.contains("can be written by every user"), "\(check)")
        #expect(check.remedy.contains("chmod 0700 \(lab.bpffs)") && check.cost != "")
        #expect(Preflight.run(options).level == .l0, "a warning costs no level")
        // The remedy is one. (A remount would change nothing.)
        #expect(try run(["sh", "-c", "chmod 0700 \(lab.bpffs)"]).status == 0)
        #expect(try found().status == .ok)
    }
}
