import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// A node proxy that was to take over and hangs: nobody waits for it in silence, and its end gives everything back.
    @Suite("Upgrade that hangs", .serialized)
    struct HungUpgradeTests {
        /// The mesh's configuration with another namespace for the workload `near`.
        private func configuration(_ mesh: MeshLab, near path: String) throws -> String {
            let folder = "\(mesh.lab.folder)/other"
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            for name in ["mesh", "services"] {
                try FileManager.default.copyItem(
                    atPath: "\(mesh.lab.folder)/config/\(name).yaml", toPath: "\(folder)/\(name).yaml")
            }
            try mesh.workloads().replacing(MeshLab.workload(mesh.near), with: MeshLab.workload(mesh.near, netns: path))
                .write(toFile: "\(folder)/workloads.yaml", atomically: true, encoding: .utf8)
            return folder
        }

        private func mode(_ path: String) throws -> Int? {
            try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        }

        /// Waits until node-1 says that it is not ready, and why.
        private func notReady(_ mesh: MeshLab, _ words: String) async throws {
            try await until("readiness says: \(words)", within: MeshLab.patience) {
                let answer = try await mesh.readiness(1)
                return answer.code == 503 && answer.body.contains(words)
            }
        }

        /// Waits until a process holds a lock of flock(2), or waits for one.
        private func lock(_ process: LabProcess, isHeld: Bool) async throws {
            try await until("the lock is held: \(isHeld)", within: MeshLab.patience) {
                try String(contentsOfFile: "/proc/locks", encoding: .utf8).split(separator: "\n").contains { line in
                    let words = line.split(separator: " ")
                    return words.contains("FLOCK") && words.contains("\(process.pid)") && words.contains("->") != isHeld
                }
            }
        }

        @Test("one that is stopped is named in log and readiness; killed, it gives the node back")
        func stopped() async throws {
            try await MeshLab.with(nodes: [2]) { mesh in
                try mesh.start(1, more: ["--takeover-limit", "1"])
                try await mesh.waitUntilReady(1)
                let run = "\(mesh.lab.folder)/run"
                #expect(try mode("\(run)/node-1.lock") == 0o600 && mode("\(run)/node-1") == 0o711)
                // It cannot serve everything, so it does not say that it serves before it is stopped.
                let config = try configuration(mesh, near: "\(mesh.near.namespacePath)-none")
                let old = try mesh.forget(1)
                let new = try mesh.start(
                    1,
                    more: [
                        "--takeover", "--config", config, "--admin-port", "16000", "--metrics-port", "16020",
                        "--readiness-port", "16021",
                    ], name: "proxy-1-new")
                _ = try await new.log.waitForLine(
                    containing: ["workload default/near is not ready"], within: MeshLab.patience)
                new.send(SIGSTOP)
                _ = try await old.log.waitForLine(
                    containing: ["process \(new.pid)", "has said nothing", "kill -KILL \(new.pid)"],
                    within: MeshLab.patience)
                try await notReady(mesh, "process \(new.pid), which was to take over")

                // Somebody else has the lock before the one that was left can take it.
                let holder = try mesh.lab.spawn(
                    Launch("flock", ["-F", "\(run)/node-1.lock", "sleep", "infinity"]), name: "holder")
                try await lock(holder, isHeld: false)
                old.send(SIGSTOP)
                new.send(SIGKILL)
                _ = try await new.exit(within: MeshLab.patience)
                try await lock(holder, isHeld: true)
                old.send(SIGCONT)
                try await notReady(mesh, "taking the node back: starting the daemon of node node-1")
                holder.send(SIGKILL)
                _ = try await old.log.waitForLine(
                    containing: ["this process has the node again"], within: MeshLab.patience)
                mesh.remember(1, old)
                try await mesh.waitUntilReady(1)
                // Tried many times, said once.
                #expect(old.log.lines().filter { $0.contains("taking the node back") }.count == 1)

                // It writes kernel state again, and hands over to one that does not hang.
                try await mesh.apply("workloads", mesh.workloads(MeshLab.workload(mesh.late)))
                _ = try await mesh.logged(1, ["workload default/late is served"])
                try mesh.forget(1)
                try mesh.start(1, more: ["--takeover"], name: "proxy-1-last")
                #expect(try await old.exit(within: MeshLab.patience) == .exited(0), "\(old.log.tail())")
                try await mesh.waitUntilReady(1)
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
            }
        }

        @Test("one that goes on after it was given up for hung still takes over")
        func late() async throws {
            try await MeshLab.with(nodes: [2]) { mesh in
                try mesh.start(1, more: ["--takeover-limit", "1"])
                try await mesh.waitUntilReady(1)
                let config = try configuration(mesh, near: "\(mesh.near.namespacePath)-none")
                let old = try mesh.forget(1)
                let new = try mesh.start(
                    1, more: ["--takeover", "--takeover-limit", "600", "--config", config], name: "proxy-1-new")
                _ = try await new.log.waitForLine(
                    containing: ["workload default/near is not ready"], within: MeshLab.patience)
                new.send(SIGSTOP)
                _ = try await old.log.waitForLine(containing: ["has said nothing"], within: MeshLab.patience)
                new.send(SIGCONT)
                try mesh.workloads().write(
                    toFile: "\(config)/workloads.yaml", atomically: true, encoding: .utf8)
                #expect(try await old.exit(within: MeshLab.patience) == .exited(0), "\(old.log.tail())")
                try await mesh.waitUntilReady(1)
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
            }
        }

        @Test("one whose start of a workload hangs gives up in time")
        func stuckStart() async throws {
            try await MeshLab.with { mesh in
                // Opening it waits for somebody who writes there.
                let pipe = "\(mesh.lab.folder)/pipe"
                #expect(mkfifo(pipe, 0o600) == 0)
                let config = try configuration(mesh, near: pipe)
                let old = try mesh.forget(1)
                let new = try mesh.start(
                    1, more: ["--takeover", "--takeover-limit", "1", "--config", config], name: "proxy-1-new")
                #expect(try await new.exit(within: MeshLab.patience) == .exited(1), "\(new.log.tail())")
                #expect(
                    new.log.line(
                        containing: ["could be taken over within 1.0 seconds", "Starting its workloads hangs"]) != nil,
                    "\(new.log.tail())")
                _ = try await old.log.waitForLine(
                    containing: ["this process has the node again"], within: MeshLab.patience)
                mesh.remember(1, old)
                try await mesh.waitUntilReady(1)
                #expect(try await mesh.probe(mesh.near.v4, from: mesh.client).outcome == "ok")
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
            }
        }
    }
}
