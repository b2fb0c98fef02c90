import Foundation
import Testing

@testable import MeshTestKit

@Suite struct SweepTests {
    @Test func namesOfLabsAreToldFromOthers() {
        #expect(LabToken.parse("cv4711-1a2b3c4d-node-1")?.token == "cv4711-1a2b3c4d")
        #expect(LabToken.parse("cv4711-1a2b3c4d")?.pid == 4711)
        for name in ["shop", "cv-1a2b3c4d", "cv12-short", "cvx-1a2b3c4d", "cv1", "cni-4711-1a2b3c4d"] {
            #expect(LabToken.parse(name) == nil, "\(name)")
        }
        #expect(LabToken.parse(LabToken.make())?.pid == getpid())
    }

    @Test func leftoversOfTheDeadGoAndOthersStay() async throws {
        let lab = try await Lab.make(nodes: 1)
        defer { lab.tearDownNow() }
        let process = try lab.spawn(Launch("sleep", ["1000"], in: lab.nodes[0]), name: "sleeper")
        Lab.sweep()
        #expect(process.isRunning)

        // A pid that was used again: alive, but started at another time.
        try "\(getpid()) 1 kept\n".write(toFile: "\(lab.folder)/owner", atomically: true, encoding: .utf8)
        #expect(!Lab.sweep().contains(lab.token))
        try "\(getpid()) 1 owner\n".write(toFile: "\(lab.folder)/owner", atomically: true, encoding: .utf8)
        #expect(Lab.sweep().contains(lab.token))
        #expect(process.status == .signalled(SIGKILL))
        #expect(LabTests.traces(of: lab.token) == [])
    }

    @Test func theOwnerIsKnownByItsStart() throws {
        let owner = LabOwner.current(lifetime: .owner)
        #expect(owner.isAlive)
        #expect(!LabOwner(pid: owner.pid, started: "1", lifetime: .owner).isAlive)
        #expect(!LabOwner(pid: Int32.max, started: "", lifetime: .owner).isAlive)
    }
}
