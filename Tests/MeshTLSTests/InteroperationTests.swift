import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshTLS

/// Against `openssl s_client` and `openssl s_server` over loopback sockets on ports that the kernel picks.
@Suite struct InteroperationTests {
    /// The command judges certificates by the machine's clock.
    private let time = TLSContext.systemClock()

    private func svid(_ account: String, _ authority: EmbeddedAuthority) throws -> SVID {
        let key = try PrivateKey.generate()
        let request = try CertificateRequest(key: key, identity: identity(account))
        let chain = try authority.sign(request, identity: identity(account), now: time)
        return try SVID(chain: chain, key: key, trustBundle: authority.trustBundle, now: time)
    }

    /// Our server, and `openssl s_client` with these arguments; the socket's session after one line each way, or after
    /// the failure.
    private func serve(_ arguments: (String) -> [String]) throws -> (session: TLSSession, line: String) {
        let authority = try EmbeddedAuthority.create(trustDomain: "mesh.test", now: time)
        let context = try TLSContext(svid: svid("server", authority))
        return try OpenSSLCommand.withFolder { folder in
            try OpenSSLCommand.write(svid("client", authority), to: folder)
            let listener = try LoopbackSocket.listener()
            let client = try Peer(
                ["s_client", "-connect", "127.0.0.1:\(listener.port)", "-quiet", "-no_ign_eof"] + arguments(folder),
                input: "hello from openssl\n")
            defer { client.stop() }
            let socket = try listener.accept()
            let session = TLSSession(server: context)
            guard try socket.handshake(session) else { return (session, "") }
            return (session, try socket.exchange(session, sending: "hello from culvert\n"))
        }
    }

    private func credentials(_ folder: String) -> [String] {
        ["-cert", folder + "/leaf.pem", "-key", folder + "/key.pem", "-CAfile", folder + "/bundle.pem"]
    }

    @Test func theCommandAsClient() throws {
        let (session, line) = try serve { credentials($0) + ["-alpn", "h2", "-verify_return_error"] }
        #expect(session.state == .established)
        #expect(session.peerIdentity == identity("client"))
        #expect(line == "hello from openssl\n")
    }

    @Test(arguments: ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"])
    func everySuite(_ suite: String) throws {
        let (session, line) = try serve { credentials($0) + ["-alpn", "h2", "-ciphersuites", suite] }
        #expect(session.cipherSuite == suite)
        #expect(line == "hello from openssl\n")
    }

    @Test func aGroupThatTheClientGuessedWrong() throws {
        // Offers a share we do not take first: HelloRetryRequest.
        let (session, line) = try serve { credentials($0) + ["-alpn", "h2", "-groups", "P-384:P-256"] }
        #expect(session.state == .established)
        #expect(line == "hello from openssl\n")
    }

    @Test func tls12IsRefused() throws {
        #expect(try serve { credentials($0) + ["-alpn", "h2", "-tls1_2"] }.session.reason == .protocolVersion)
        #expect(try serve { credentials($0) + ["-tls1_2"] }.session.reason == .protocolVersion)
    }

    @Test func aClientWithoutCertificateIsRefused() throws {
        #expect(try serve { _ in ["-alpn", "h2"] }.session.reason == .noCertificate)
    }

    @Test func noCommonProtocolIsRefused() throws {
        #expect(try serve { credentials($0) + ["-alpn", "http/1.1,h3"] }.session.reason == .alpn)
        #expect(try serve { credentials($0) }.session.reason == .alpn)
    }

    @Test func noCommonSuiteOrGroupIsRefused() throws {
        let (session, _) = try serve { credentials($0) + ["-alpn", "h2", "-groups", "P-521"] }
        guard case .protocolViolation? = session.reason else {
            Issue.record("\(String(describing: session.failure))")
            return
        }
    }

    /// Our client against `openssl s_server` with these arguments.
    private func dial(_ arguments: (String) -> [String]) throws -> (session: TLSSession, line: String) {
        let authority = try EmbeddedAuthority.create(trustDomain: "mesh.test", now: time)
        let context = try TLSContext(svid: svid("client", authority))
        return try OpenSSLCommand.withFolder { folder in
            try OpenSSLCommand.write(svid("server", authority), to: folder)
            let server = try Peer(
                ["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-Verify", "3"] + arguments(folder),
                input: "hello from openssl\n")
            defer { server.stop() }
            let socket = try LoopbackSocket.connect(port: server.announcedPort())
            let session = TLSSession(client: context, expecting: [identity("server")])
            guard try socket.handshake(session) else { return (session, "") }
            return (session, try socket.exchange(session, sending: "hello from culvert\n"))
        }
    }

    @Test func theCommandAsServer() throws {
        // It sends session tickets, which are read and dropped.
        let (session, line) = try dial { credentials($0) + ["-alpn", "h2", "-verify_return_error"] }
        #expect(session.peerIdentity == identity("server"))
        #expect(line == "hello from openssl\n")
    }

    @Test func aServerOfTLS12IsRefused() throws {
        #expect(try dial { credentials($0) + ["-alpn", "h2", "-tls1_2"] }.session.reason == .protocolVersion)
    }

    @Test func aServerWithoutOurProtocolIsRefused() throws {
        #expect(try dial { credentials($0) }.session.reason == .alpn)
        #expect(try dial { credentials($0) + ["-alpn", "http/1.1"] }.session.reason == .alpn)
    }
}

/// A running `openssl` command that writes `input` to its peer.
private final class Peer {
    private let process = Process()
    private let stdin = Pipe()
    private let stdout = Pipe()

    init(_ arguments: [String], input: String) throws {
        // A command that ended before it was written to is a failed expectation, not the end of the test process.
        signal(SIGPIPE, SIG_IGN)
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments = arguments
        process.standardInput = stdin
        process.standardOutput = stdout
        process.standardError = FileHandle.nullDevice
        try process.run()
        stdin.fileHandleForWriting.write(Data(input.utf8))
    }

    /// `s_server` prints `ACCEPT 127.0.0.1:PORT` when it listens.
    func announcedPort() throws -> UInt16 {
        var text = ""
        while true {
            let data = stdout.fileHandleForReading.availableData
            guard !data.isEmpty else { throw OpenSSLCommand.Failed(description: "s_server ended: \(text)") }
            text += String(decoding: data, as: UTF8.self)
            guard
                let line = text.split(separator: "\n", omittingEmptySubsequences: false).dropLast().first(where: {
                    $0.hasPrefix("ACCEPT")
                })
            else { continue }
            guard let port = line.split(separator: ":").last.flatMap({ UInt16($0) }) else { continue }
            return port
        }
    }

    func stop() {
        try? stdin.fileHandleForWriting.close()
        process.terminate()
        process.waitUntilExit()
    }
}

/// A blocking socket with a receive timeout: a test that waits for ever says nothing.
private final class LoopbackSocket {
    private let descriptor: Int32
    private var unread: [UInt8] = []

    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        var limit = timeval(tv_sec: 120, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(descriptor) }

    private static func withLoopback<R>(_ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    static func listener() throws -> LoopbackSocket {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let isBound = withLoopback(0) { bind(descriptor, $0, $1) == 0 } && listen(descriptor, 8) == 0
        guard isBound else { throw OpenSSLCommand.Failed(description: "cannot listen: errno \(errno)") }
        return LoopbackSocket(descriptor)
    }

    static func connect(port: UInt16) throws -> LoopbackSocket {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard withLoopback(port, { Glibc.connect(descriptor, $0, $1) }) == 0 else {
            throw OpenSSLCommand.Failed(description: "cannot connect: errno \(errno)")
        }
        return LoopbackSocket(descriptor)
    }

    var port: UInt16 {
        var address = sockaddr_in()
        var count = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &count) }
        }
        return UInt16(bigEndian: address.sin_port)
    }

    func accept() throws -> LoopbackSocket {
        let accepted = Glibc.accept(descriptor, nil, nil)
        guard accepted >= 0 else { throw OpenSSLCommand.Failed(description: "no connection: errno \(errno)") }
        return LoopbackSocket(accepted)
    }

    private func send(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    private func receive() -> [UInt8]? {
        var buffer = [UInt8](repeating: 0, count: 16_384)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return count > 0 ? Array(buffer[..<count]) : nil
    }

    /// Whether both sides came to an end of the handshake that suits us.
    func handshake(_ session: TLSSession) throws -> Bool {
        var input: [UInt8] = []
        while true {
            let step = session.handshake(input)
            send(step.output)
            unread = step.rest
            switch step.status {
            case .done: return true
            case .failed: return false
            default: break
            }
            guard let more = receive() else {
                _ = session.endOfInput()
                return false
            }
            input = more
        }
    }

    /// Sends a line and gives the line that came, whatever order they had.
    func exchange(_ session: TLSSession, sending line: String) throws -> String {
        send(session.seal([UInt8](line.utf8)))
        var text: [UInt8] = []
        var input = unread
        while true {
            let got = session.open(input)
            text += got.plaintext
            if text.last == UInt8(ascii: "\n") { return String(decoding: text, as: UTF8.self) }
            guard got.status == .needMore, let more = receive() else { return String(decoding: text, as: UTF8.self) }
            input = more
        }
    }
}
