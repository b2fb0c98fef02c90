import Foundation
import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// What holds of capture by rules alone (L3).
@Suite(.serialized, .timeLimit(.minutes(2)))
struct RedirectTests {
    /// Counts what reaches port 8080 of the namespace `out`, whatever becomes of it.
    private static let watch = """
        table inet watch {
            counter seen {}
            chain input {
                type filter hook input priority -200; policy accept;
                tcp dport 8080 counter name seen
            }
        }
        """

    /// Forgets every connection of its namespace, as a flush by hand or a full table does (ctnetlink, CT_DELETE).
    private static let flush = """
        import socket, struct
        netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        netlink.send(struct.pack('IHHII', 20, 0x102, 5, 1, 0) + struct.pack('BBH', 0, 0, 0))
        length, kind, flags, sequence, sender, error = struct.unpack('IHHIIi', netlink.recv(4096)[:20])
        assert kind == 2 and error == 0, error
        """

    private func packetsSeen(_ lab: Lab) throws -> Int {
        let text = try shell("ip netns exec \(lab.out) nft list counter inet watch seen")
        let words = text.split(whereSeparator: \.isWhitespace)
        let index = try #require(words.firstIndex(of: "packets"))
        return try #require(Int(words[index + 1]))
    }

    @Test func aConnectionThatTheTableForgotIsResetAndNothingLeavesInClearText() throws {
        try LevelFixture.with(.l3) { fixture in
            let lab = fixture.lab
            try lab.serve(in: lab.out, port: 8080)
            try fixture.attach()
            let rules = "\(lab.options.runtimeDirectory).nft"
            try Self.watch.write(toFile: rules, atomically: true, encoding: .utf8)
            defer { unlink(rules) }
            try shell("ip netns exec \(lab.out) nft -f \(rules)")
            for host in ["10.77.0.1", "fd00:77::1"] {
                let client = try Client(in: lab.namespace(lab.pod), to: host, 8080)
                defer { client.close() }
                let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound))
                defer { Glibc.close(accepted.socket) }
                #expect(accepted.destination == host)
                let outcome = try run(["nsenter", "--net=/run/netns/\(lab.pod)", "python3", "-c", Self.flush])
                #expect(outcome.status == 0, "\(outcome.errors)")
                client.say("secret")
                #expect(client.answer() == "ECONNRESET")
            }
            #expect(try packetsSeen(lab) == 0)
            let counts = try #require(fixture.capture.statistics(of: lab.name))
            #expect(counts[.outboundSteered] == 2 && counts[.connectionForgotten] >= 2, "\(counts)")
            // The watch sees what does arrive.
            let direct = try lab.connect(in: lab.out, "10.77.0.1", 8080, "text=direct")
            #expect(direct.answer.hasSuffix("|direct"))
            #expect(try packetsSeen(lab) > 0)
        }
    }

    @Test func theProxysOwnSocketsPassByTheirMark() throws {
        try LevelFixture.with(.l3) { fixture in
            let lab = fixture.lab
            try lab.serve(in: lab.out, port: 8080)
            try fixture.attach()
            for host in ["10.77.0.1", "fd00:77::1"] {
                let client = try Client(in: lab.namespace(lab.pod), to: host, 8080, mark: CaptureConstants.proxyMark)
                defer { client.close() }
                client.say("direct")
                client.finish()
                #expect(client.answer().hasSuffix("|direct"))
            }
            #expect(fixture.proxy.accept(fixture.proxy.outbound) == nil)
        }
    }

    @Test func updatingAWorkloadKeepsItsCapturedConnections() throws {
        try LevelFixture.with(.l3) { fixture in
            try fixture.attach()
            let client = try Client(in: fixture.lab.namespace(fixture.lab.pod), to: "192.0.2.1", 80)
            defer { client.close() }
            let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound))
            defer { Glibc.close(accepted.socket) }
            try fixture.attach(addresses: [fixture.lab.v4])
            try fixture.attach(addresses: [fixture.lab.v4], scope: CaptureScope(excludedOutboundPorts: [9000]))
            #expect(fixture.capture.statistics(of: fixture.lab.name)?[.outboundSteered] == 1, "counters go on")
            _ = "still here".withCString { send(accepted.socket, $0, strlen($0), 0) }
            shutdown(accepted.socket, Int32(SHUT_WR))
            #expect(client.answer() == "still here")
        }
    }

    /// Without the record nobody would know how the namespace was.
    @Test func whatCannotBePutBackIsRememberedUntilItCan() throws {
        try LevelFixture.with(.l3) { fixture in
            let options = fixture.lab.options
            let before = try fixture.surroundings()
            try fixture.attach()
            let captured = try fixture.surroundings()
            let records = RedirectRecords(options, level: .l3)
            try withoutChanges(in: "\(options.runtimeDirectory).bin") {
                #expect(throws: KernelError.self) { try fixture.capture.uninstall() }
                fixture.kill()
                #expect(records.load().map(\.workload) == [fixture.lab.name])
                #expect(throws: KernelError.self) { try NodeCapture.uninstall(options: options) }
            }
            #expect(records.load().map(\.workload) == [fixture.lab.name])
            #expect(try fixture.surroundings() == captured)
            try NodeCapture.uninstall(options: options)
            #expect(try fixture.surroundings() == before)
            #expect(!records.exist)
        }
    }

    @Test func anNftThatHangsIsKilledWithWhatItStarted() throws {
        let folder = "/tmp/culvert-nft-\(getpid())"
        let text = "#!/bin/sh\nflock -F \(folder)/held sleep 1000 &\nwait\n"
        try withProgram(text, in: folder) {
            #expect {
                _ = try NftProgram.run(
                    ["list", "tables", "inet"], input: "", place: "somewhere", limit: .milliseconds(300))
            } throws: { error in
                let error = error as? KernelError
                return error?.place == "somewhere" && error?.cause.contains("did not end within 0.3 seconds") == true
                    && error?.what.contains("\(folder)/nft list tables inet") == true
            }
            // Free at once, or when the one that holds it ends; never while it lives.
            let held = open("\(folder)/held", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
            defer { close(held) }
            #expect(flock(held, LOCK_EX) == 0)
        }
        #expect(try !NftProgram.tableExists(place: "here"), "the real one is used again")
    }

    /// The `nft` that is found meanwhile lists but changes nothing.
    private func withoutChanges(in folder: String, _ body: () throws -> Void) throws {
        let real = try NftProgram.path()
        try withProgram("#!/bin/sh\n[ \"$1\" = list ] || exit 1\nexec \(real) \"$@\"\n", in: folder, body)
    }

    /// Another `nft` is found meanwhile.
    private func withProgram(_ text: String, in folder: String, _ body: () throws -> Void) throws {
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try text.write(toFile: "\(folder)/nft", atomically: false, encoding: .utf8)
        chmod("\(folder)/nft", 0o755)
        let path = String(cString: getenv("PATH"))
        setenv("PATH", "\(folder):\(path)", 1)
        defer { setenv("PATH", path, 1) }
        try body()
    }

    @Test func recordsAreReadAsTheyWereWritten() throws {
        let record = RedirectRecord(
            workload: ObjectName(namespace: "default", name: "shop"), inode: 4_026_532_000,
            settings: NamespaceSettings(accept: 0, reflect4: 1, reflect6: NamespaceSettings.absent),
            live: [
                LiveConnection(
                    local: try #require(IPAddress("fd00::2")), localPort: 80,
                    remote: try #require(IPAddress("fd00::1")), remotePort: 4000)
            ])
        #expect(RedirectRecord(record.text) == record)
        for cut in 1..<4 {
            let lines = record.text.split(separator: "\n").dropLast(cut + 1).joined(separator: "\n")
            #expect(RedirectRecord(lines) == nil, "\(lines)")
        }
        #expect(RedirectRecord(record.text.replacing("record 1", with: "record 2")) == nil)
    }

    @Test func theKernelsListOfConnectionsIsUnderstood() throws {
        let v4 = "   1: 0200000A:1F90 0100000A:0FA0 01 00000000:00000000 00:00000000 00000000 0 0 1 1"
        #expect(
            LiveConnection(line: v4[...])
                == LiveConnection(
                    local: IPAddress("10.0.0.2")!, localPort: 8080, remote: IPAddress("10.0.0.1")!, remotePort: 4000))
        let v6 = "   2: 000000FD000000000000000002000000:0050 000000FD000000000000000001000000:0FA0 08 0:0"
        #expect(
            LiveConnection(line: v6[...])
                == LiveConnection(
                    local: IPAddress("fd00::2")!, localPort: 80, remote: IPAddress("fd00::1")!, remotePort: 4000))
        let mapped = "   3: 0000000000000000FFFF00000200000A:0050 0000000000000000FFFF00000100000A:0FA0 01 0:0"
        #expect(LiveConnection(line: mapped[...])?.remote == IPAddress("10.0.0.1"))
        let listener = "   4: 00000000:1F90 00000000:0000 0A 0:0"
        #expect(LiveConnection(line: listener[...]) == nil)
        let loopback = "   5: 0100007F:1F90 0100007F:0FA0 01 0:0"
        #expect(LiveConnection(line: loopback[...]) == nil)
    }
}
