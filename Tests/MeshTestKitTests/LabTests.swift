import Foundation
import Testing

@testable import MeshTestKit

/// Labs on the machine itself: they need root, and say so when they do not have it.
@Suite struct LabTests {
    @Test func podsReachEachOtherAcrossAndWithinNodesOnBothFamilies() async throws {
        try await Lab.with { lab in
            let client = try await lab.addPod("client", on: lab.nodes[0])
            let near = try await lab.addPod("near", on: lab.nodes[0])
            let far = try await lab.addPod("far", on: lab.nodes[1])
            for pod in [near, far] {
                let server = try await lab.startWebServer(in: pod, page: "I am \(pod.name), you are $remote_addr")
                for (address, own) in [(pod.v4, client.v4), ("[\(pod.v6)]", client.v6)] {
                    let answer = try await lab.curl("http://\(address):8080/x", in: client)
                    #expect(answer.code == 200, "\(answer)")
                    #expect(answer.body.contains("I am \(pod.name), you are \(own)"))
                }
                #expect(server.requests(containing: client.v4) == 1)
                // As a kubelet would: the node itself calls its pods from its own address.
                let node = lab.nodes[pod.nodeNumber - 1]
                #expect(try await lab.curl("http://[\(pod.v6)]:8080/", in: node).body.contains("you are \(node.v6)"))
            }
        }
    }

    @Test func redisAndIperfRunAcrossNodes() async throws {
        try await Lab.with { lab in
            let client = try await lab.addPod("client", on: lab.nodes[0])
            let server = try await lab.addPod("server", on: lab.nodes[1])
            _ = try await lab.startRedis(in: server)
            _ = try await lab.startIperf(in: server)
            for address in [server.v4, server.v6] {
                #expect(try await lab.check(Launch("redis-cli", ["-h", address, "set", "k", "v"], in: client)) == "OK")
                try await lab.check(Launch("iperf3", ["-c", address, "-n", "1M"], in: client))
            }
        }
    }

    @Test func everythingIsGoneAfterwards() async throws {
        let lab = try await Lab.make()
        let pod = try await lab.addPod("pod", on: lab.nodes[1])
        let process = try lab.spawn(Launch("sleep", ["1000"], in: pod), name: "sleeper")
        #expect(FileManager.default.fileExists(atPath: pod.namespacePath))
        await lab.tearDown()
        #expect(process.status == .signalled(SIGKILL))
        #expect(Self.traces(of: lab.token) == [])
        #expect(throws: LabError.self) { _ = try lab.spawn(Launch("true"), name: "late") }
    }

    @Test func aLabThatFailsLeavesNothing() async throws {
        var token = ""
        await #expect(throws: LabError.self) {
            try await Lab.with { lab in
                token = lab.token
                try await lab.check(Launch("false", in: lab.nodes[0]))
            }
        }
        #expect(!token.isEmpty && Self.traces(of: token) == [])
    }

    @Test func twoLabsLiveSideBySide() async throws {
        async let first = Lab.make()
        async let second = Lab.make(nodes: 3)
        let labs = try await [first, second]
        defer { labs.forEach { $0.tearDownNow() } }
        for lab in labs {
            let one = try await lab.addPod("one", on: lab.nodes[0])
            let two = try await lab.addPod("two", on: lab.nodes[lab.nodes.count - 1])
            _ = try await lab.startWebServer(in: two, page: lab.token)
            #expect(try await lab.curl("http://\(two.v4):8080/", in: one).body == "\(lab.token)\n")
        }
    }

    @Test func aPodCanGoAndComeBackUnderItsName() async throws {
        try await Lab.with(nodes: 1) { lab in
            let first = try await lab.addPod("pod", on: lab.nodes[0])
            try await lab.removePod(first)
            #expect(!FileManager.default.fileExists(atPath: first.namespacePath))
            let second = try await lab.addPod("pod", on: lab.nodes[0])
            #expect(second.v4 != first.v4)
            try await lab.check(Launch("true", in: second))
        }
    }

    @Test func aProcessRunsWhereAndAsWhomItWasTold() async throws {
        try await Lab.with(nodes: 1) { lab in
            let pod = try await lab.addPod("pod", on: lab.nodes[0])
            let script =
                "readlink /proc/self/ns/net; cat /proc/self/cgroup; grep -E '^(Uid|CapEff)' /proc/self/status; echo $X"
            let told = try await lab.check(
                Launch("sh", ["-c", script], in: pod, user: "nobody", environment: ["X": "as told"]))
            var status = stat()
            #expect(stat(pod.namespacePath, &status) == 0)
            #expect(told.contains("net:[\(status.st_ino)]"))
            #expect(told.contains("/\(lab.token)/node-1/pod-pod"))
            #expect(told.contains("Uid:\t65534\t65534"))
            #expect(told.contains("CapEff:\t0000000000000000"))
            #expect(told.contains("as told"))
        }
    }

    @Test func peopleCanRunCommandsOnAHost() async throws {
        try await Lab.with(nodes: 1) { lab in
            let pod = try await lab.addPod("pod", on: lab.nodes[0])
            for (host, group) in [(pod, "/node-1/pod-pod"), (lab.nodes[0], "/node-1"), (lab.wire, "/wire")] {
                let words = lab.shellPrefix(host).split(separator: " ").map(String.init) + ["sh", "-c"]
                let told = try await lab.check(
                    Launch("env", words + ["cat /proc/self/cgroup; readlink /proc/self/ns/net"]))
                var status = stat()
                #expect(stat(host.namespacePath, &status) == 0)
                #expect(told.contains("/\(lab.token)\(group)\n") && told.contains("net:[\(status.st_ino)]"))
            }
        }
    }

    @Test func aCommandIsKilledAtItsLimit() async throws {
        try await Lab.with(nodes: 1) { lab in
            let result = try await lab.run(Launch("sleep", ["1000"], in: lab.nodes[0]), within: .milliseconds(50))
            #expect(result.timedOut && !result.isSuccess)
        }
    }

    @Test func missingProgramsAreNamedWithTheirPackage() {
        let error = #expect(throws: LabError.self) { try Programs.require(["no-such-program", "sh"]) }
        #expect(error?.description == "missing on this machine: no-such-program")
        #expect(Programs.packages["redis-cli"] == "redis-tools")
    }

    /// What a machine still has of a lab.
    static func traces(of token: String) -> [String] {
        let groups = (try? Cgroup.mountPoint()) ?? "/none"
        let mounts = (try? String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)) ?? ""
        return [LabToken.base, LabToken.namespaces, groups].flatMap(Remains.names).filter { $0.hasPrefix(token) }
            + (mounts.contains(token) ? ["a mount"] : [])
    }
}
