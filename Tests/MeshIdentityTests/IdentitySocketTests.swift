import Foundation
import Glibc
import MeshModel
import MeshTLS
import Synchronization
import Testing

@testable import MeshIdentity

@Suite struct IdentitySocketTests {
    let folder: TemporaryFolder
    let path: String
    let clock = ManualClock()
    let signer: ScriptedSigner

    init() throws {
        folder = try TemporaryFolder()
        path = folder.file("run/identity.sock")
        signer = try ScriptedSigner(clock)
    }

    /// The inode of this process's network namespace.
    private var ownNamespace: UInt64 {
        var status = stat()
        stat("/proc/self/ns/net", &status)
        return UInt64(status.st_ino)
    }

    /// Long enough for a machine that is busy with other tests: signing waits for one of Swift concurrency's threads.
    private static let patience: Int64 = 120_000

    private func server(_ change: (inout IdentityServer.Limits) -> Void = { _ in }) throws -> IdentityServer {
        let own = ownNamespace
        var limits = IdentityServer.Limits()
        limits.timeoutMilliseconds = IdentitySocketTests.patience
        change(&limits)
        return try IdentityServer(path: path, signer: signer, limits: limits) { inode in
            inode == own ? identity("waypoint") : nil
        }
    }

    private func store() -> SVIDStore {
        let client = IdentityClient(path: path, timeoutMilliseconds: IdentitySocketTests.patience)
        return SVIDStore(signer: client, clock: clock.clock, jitter: { 1 })
    }

    @Test func aWaypointGetsAndRenewsItsSVID() async throws {
        let server = try server()
        defer { server.stop() }
        let store = store()
        let first = try await store.svid(for: identity("waypoint"))
        #expect(first.identity == identity("waypoint"))
        clock.advance(first.halfLife - clock.now)
        await store.renewDue()
        let second = try await store.svid(for: identity("waypoint"))
        #expect(second !== first)
        // And it works: a session between the two of them.
        let now = clock.now
        let context = try TLSContext(svid: second, clock: { now })
        #expect(context.svid.trustBundle.map(\.serial) == first.trustBundle.map(\.serial))
    }

    @Test func anotherIdentityThanTheCallersIsRefused() async throws {
        let server = try server()
        defer { server.stop() }
        let error = await #expect(throws: IdentityError.self) {
            try await store().svid(for: identity("shop"))
        }
        #expect(error?.reason == .refused)
        #expect(error?.description.contains("its sender is spiffe://mesh.test/ns/default/sa/waypoint") == true)
    }

    @Test func aCallerFromNoWorkloadIsRefused() async throws {
        let server = try IdentityServer(path: path, signer: signer) { _ in nil }
        defer { server.stop() }
        let error = await #expect(throws: IdentityError.self) { try await store().svid(for: identity("waypoint")) }
        #expect(error?.reason == .refused)
        #expect(error?.description.contains("no workload of this node") == true)
    }

    @Test func theSignersTroubleComesBack() async throws {
        let server = try server()
        defer { server.stop() }
        signer.fail(IdentityError(.unavailable, "the CA is away"))
        let error = await #expect(throws: IdentityError.self) { try await store().svid(for: identity("waypoint")) }
        #expect(error?.reason == .unavailable)
        #expect(error?.description.contains("the CA is away") == true)
    }

    @Test func nobodyThere() async throws {
        let error = await #expect(throws: IdentityError.self) { try await store().svid(for: identity("waypoint")) }
        #expect(error?.reason == .unavailable)
    }

    @Test func anyoneMayConnectAndNobodyMayReplace() throws {
        let server = try server()
        #expect(try folder.mode("run/identity.sock") == 0o666)
        #expect(try folder.mode("run") == 0o711)
        let error = #expect(throws: IdentityError.self) { try self.server() }
        #expect(error?.reason == .inUse)
        server.stop()
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test func aStaleSocketIsReplaced() throws {
        mkdir(folder.file("run"), 0o755)
        let left = try UnixSocket.listen(path)
        close(left)
        #expect(FileManager.default.fileExists(atPath: path))
        try server().stop()
    }

    @Test func somethingElseInItsPlaceIsNotTouched() throws {
        mkdir(folder.file("run"), 0o755)
        try folder.write("run/identity.sock", "precious")
        let error = #expect(throws: IdentityError.self) { try server() }
        #expect(error?.reason == .file)
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "precious")
    }

    @Test func aFolderThatOthersCanWriteIsRefused() throws {
        mkdir(folder.file("run"), 0o755)
        chmod(folder.file("run"), 0o777)
        let error = #expect(throws: IdentityError.self) { try server() }
        #expect(error?.reason == .permissions)
    }

    @Test func aPathThatIsTooLong() throws {
        let long = folder.path + "/" + String(repeating: "x", count: 120)
        let error = #expect(throws: IdentityError.self) {
            try IdentityServer(path: long, signer: signer) { _ in nil }
        }
        #expect(error?.reason == .file)
    }

    /// Sends bytes and gives everything that comes back.
    private func raw(_ bytes: [UInt8], finish: Bool = false) async throws -> [UInt8] {
        let path = path
        return try await blocking { try IdentitySocketTests.exchange(path, bytes, finish) }
    }

    private static func exchange(_ path: String, _ bytes: [UInt8], _ finish: Bool) throws -> [UInt8] {
        let descriptor = try UnixSocket.connect(path)
        defer { close(descriptor) }
        _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        if finish { shutdown(descriptor, Int32(SHUT_WR)) }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            try #require(poll(&entry, 1, 120_000) == 1)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            guard count > 0 else { return answer }
            answer += buffer[..<count]
        }
    }

    @Test func peersThatDoNotSpeakTheProtocol() async throws {
        let server = try server()
        defer { server.stop() }
        func text(_ answer: [UInt8]) -> String { String(decoding: answer.dropFirst(6), as: UTF8.self) }
        #expect(text(try await raw(Array("GET / HTTP/1.1\r\n\r\n".utf8))).contains("not the identity protocol"))
        #expect(text(try await raw([1, 0, 1, 0, 1])).contains("at most 65536"))
        #expect(text(try await raw(IdentityMessage.request("x") + [1])).contains("more than one request"))
        #expect(text(try await raw(IdentityMessage.request("not PEM"))).contains("not a certificate request"))
        #expect(try await raw([1, 0], finish: true).isEmpty)
        // And it still serves.
        #expect(try await store().svid(for: identity("waypoint")).identity == identity("waypoint"))
    }

    @Test func slowPeersAreClosedAtTheDeadline() async throws {
        let server = try server { $0.timeoutMilliseconds = 50 }
        defer { server.stop() }
        #expect(try await raw([1, 0, 0]).isEmpty)
        #expect(try await raw([]).isEmpty)
    }

    @Test func oneWorkloadCannotTakeEveryPlace() async throws {
        let server = try server { $0.connectionsPerNamespace = 2 }
        defer { server.stop() }
        let held = try (0..<2).map { _ in try UnixSocket.connect(path) }
        let answer = try await raw(IdentityMessage.request("x"))
        #expect(answer.dropFirst().first == IdentityMessage.Status.unavailable.rawValue)
        held.forEach { close($0) }
        #expect(try await store().svid(for: identity("waypoint")).identity == identity("waypoint"))
    }

    @Test func aServerThatNeverAnswersIsLeft() async throws {
        mkdir(folder.file("run"), 0o755)
        let silent = try UnixSocket.listen(path)
        defer { close(silent) }
        let store = SVIDStore(signer: IdentityClient(path: path, timeoutMilliseconds: 50), clock: clock.clock)
        let error = await #expect(throws: IdentityError.self) { try await store.svid(for: identity("waypoint")) }
        #expect(error?.reason == .unavailable)
        #expect(error?.description.contains("no answer within 50 ms") == true)
    }

    @Test func manyCallersAtOnce() async throws {
        let server = try server { $0.connectionsPerNamespace = 64 }
        defer { server.stop() }
        let path = path
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<32 {
                group.addTask {
                    let request = try CertificateRequest(key: .generate(), identity: identity("waypoint"))
                    let client = IdentityClient(path: path, timeoutMilliseconds: IdentitySocketTests.patience)
                    let signed = try await client.sign(request, identity: identity("waypoint"))
                    #expect(signed.chain.count == 1)
                }
            }
            try await group.waitForAll()
        }
    }

    /// A process in a namespace of its own: what it gets is that namespace's workload, whatever it asks for.
    ///
    ///     this process ── unix socket ── python3 in netns culvert-id-N
    @Test func aProcessInAnotherNamespaceIsItsWorkload() async throws {
        try #require(geteuid() == 0, "making a network namespace needs root")
        let name = "culvert-id-\(UInt32.random(in: .min ... .max))"
        try #require(Command.run("/usr/sbin/ip", ["netns", "add", name]).status == 0)
        defer { _ = Command.run("/usr/sbin/ip", ["netns", "del", name]) }
        var status = stat()
        try #require(stat("/var/run/netns/\(name)", &status) == 0)
        let (inside, own) = (UInt64(status.st_ino), ownNamespace)
        var limits = IdentityServer.Limits()
        limits.timeoutMilliseconds = IdentitySocketTests.patience
        let server = try IdentityServer(path: path, signer: signer, limits: limits) { inode in
            inode == inside ? identity("inside") : inode == own ? identity("waypoint") : nil
        }
        defer { server.stop() }
        for (account, expected) in [("inside", 0), ("waypoint", 1)] {
            let request = try CertificateRequest(key: .generate(), identity: identity(account))
            let message = Data(IdentityMessage.request(request.pem)).base64EncodedString()
            let script = """
                import base64, socket, sys
                s = socket.socket(socket.AF_UNIX); s.settimeout(120); s.connect(sys.argv[1])
                s.sendall(base64.b64decode(sys.argv[2])); out = b''
                while True:
                    part = s.recv(65536)
                    if not part: break
                    out += part
                sys.stdout.buffer.write(base64.b64encode(out))
                """
            let arguments = ["netns", "exec", name, "python3", "-c", script, path, message]
            let result = try await blocking { Command.run("/usr/sbin/ip", arguments) }
            try #require(result.status == 0)
            let answer = [UInt8](try #require(Data(base64Encoded: result.output)))
            try #require(answer.count > IdentityMessage.responseHeader)
            #expect(answer[1] == UInt8(expected))
            guard expected == 0 else { continue }
            let signed = try IdentityMessage.signed(Array(answer.dropFirst(IdentityMessage.responseHeader)))
            #expect(signed.chain.first?.spiffeIDs == [identity("inside")])
        }
    }
}

/// Runs what waits outside Swift concurrency's few threads: the server's signing needs one of them.
func blocking<R: Sendable>(_ body: @escaping @Sendable () throws -> R) async throws -> R {
    try await withCheckedThrowingContinuation { continuation in
        Thread.detachNewThread { continuation.resume(with: Result(catching: body)) }
    }
}

enum Command {
    static func run(_ path: String, _ arguments: [String]) -> (status: Int32, output: String) {
        let process = Process()
        let stdout = Pipe()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        process.standardOutput = stdout
        do { try process.run() } catch { return (-1, "\(error)") }
        let output = stdout.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (process.terminationStatus, String(decoding: output, as: UTF8.self))
    }
}
