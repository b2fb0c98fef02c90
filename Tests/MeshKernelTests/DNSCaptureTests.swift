import Foundation
import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// DNS capture on this machine's kernel, with the test in the proxy's place: P17 from below. See `Lab` for the topology.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class DNSCaptureTests {
    private let lab: Lab
    private let capture: KernelCapture
    private let proxy: Proxy
    private let core: Core
    private var socket: DatagramSocket?
    /// Questions as they arrived: text, and the server they were meant for.
    private var asked: [(text: String, server: IPAddress?)] = []

    init() throws {
        lab = try Lab()
        do {
            capture = try KernelCapture(options: lab.options)
            proxy = try Proxy(in: lab.namespace(lab.pod))
            core = try Core(index: 0)
            try lab.attach(capture, proxy)
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        socket?.close()
        proxy.close()
        try? capture.uninstall()
        lab.tearDown()
    }

    /// Answers every question with its own text, from the address it came to.
    private func serve() throws {
        let namespace = try lab.namespace(lab.pod)
        let descriptor = try namespace.run { () throws(SystemError) in
            try Socket.bindDatagrams(port: CaptureConstants.dnsPort)
        }
        try lab.withDescriptor(lab.pod) { try capture.captureDNS(of: lab.name, namespace: $0, socket: descriptor) }
        socket = try DatagramSocket(adopting: descriptor, on: core) { [unowned self] socket in
            while case .bytes(let count, let from, let to, let isLocal) = socket.receive(into: core.scratch) {
                #expect(isLocal)
                let bytes = UnsafeRawBufferPointer(rebasing: core.scratch[..<count])
                let alias =
                    to.isIPv4
                    ? IPAddress(v4: UInt32(truncatingIfNeeded: to.low)) : IPAddress(high: to.high, low: to.low)
                asked.append((String(decoding: bytes, as: UTF8.self), capture.originalDNSServer(alias)))
                #expect(socket.send(bytes, from: to, to: from) == nil)
            }
        }
    }

    /// Runs the client while the test answers.
    private func ask(_ arguments: String...) throws -> [String] {
        let client = try Background(lab.inside(lab.pod) + ["python3", "-c", Self.client] + arguments)
        while !client.hasEnded { core.turn(waitingAtMost: 20_000_000) }
        return client.rest().split(separator: "\n").map(String.init)
    }

    /// Arguments: servers, [device=NAME], [hasty=1] where no answer is to come. Asks each by an unconnected socket for all of them and then by a connected one of its own,
    /// with its address as the question, and prints where the answer came from; or the error.
    private static let client = #"""
        import errno, socket, sys
        print('ready', flush=True)
        device = [a[7:] for a in sys.argv[1:] if a.startswith('device=')]
        patience = 0.3 if 'hasty=1' in sys.argv else 10
        servers = [a for a in sys.argv[1:] if '=' not in a]
        def show(what):
            try: print(what())
            except OSError as e: print(errno.errorcode.get(e.errno, 'timeout'))
        for family in (socket.AF_INET, socket.AF_INET6):
            mine = [a for a in servers if (':' in a) == (family == socket.AF_INET6)]
            loose = socket.socket(family, socket.SOCK_DGRAM)
            for server in mine:
                loose.settimeout(patience)
                def unconnected():
                    loose.sendto(server.encode(), (server, 53))
                    text, peer = loose.recvfrom(100)
                    return 'loose %s %s %d' % (text.decode(), peer[0], peer[1])
                show(unconnected)
                tied = socket.socket(family, socket.SOCK_DGRAM)
                tied.settimeout(patience)
                if device: tied.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device[0].encode())
                def connected():
                    tied.connect((server, 53))
                    tied.send(server.encode())
                    text, peer = tied.recvfrom(100)
                    return 'tied %s %s %d %s %d' % ((text.decode(), peer[0], peer[1]) + tied.getpeername()[:2])
                show(connected)
        """#

    @Test func everySocketSeesTheServerItAsked() throws {
        try serve()
        let servers = ["192.0.2.53", "10.77.0.1", "2001:db8::53", "fd00:77::1", "::ffff:192.0.2.54"]
        for round in 1...2 {
            asked = []
            let lines = try ask("192.0.2.53", "10.77.0.1", "2001:db8::53", "fd00:77::1", "::ffff:192.0.2.54")
            let expected = servers.flatMap { ["loose \($0) \($0) 53", "tied \($0) \($0) 53 \($0) 53"] }
            #expect(lines == expected, "round \(round)")
            #expect(asked.map(\.server) == servers.flatMap { [IPAddress($0), IPAddress($0)] })
            #expect(asked.map(\.text) == servers.flatMap { [$0, $0] })
        }
        #expect(capture.statistics()[.dnsCaptured] == 20)
    }

    @Test func whatIsNotCaptured() throws {
        // Before, and after it was let go, questions go where they are meant to: nobody answers there.
        // The kernel tells a connected socket so, an unconnected one hears nothing.
        let nobody = ["timeout", "ECONNREFUSED"]
        #expect(try ask("10.77.0.1", "hasty=1") == nobody)
        try serve()
        #expect(try ask("10.77.0.1").count { $0.hasSuffix("10.77.0.1 53") } == 2)
        // Loopback is the workload's own.
        #expect(try ask("127.0.0.1", "::1", "hasty=1") == nobody + nobody)
        // A socket bound to a device cannot reach lo; it is left alone and counted.
        let before = capture.statistics()[.dnsPassed]
        _ = try ask("10.77.0.1", "device=e0", "hasty=1")
        #expect(capture.statistics()[.dnsPassed] == before + 1)
        capture.releaseDNS(of: lab.name)
        let refused = capture.statistics()[.dnsRefused]
        #expect(try ask("10.77.0.1", "hasty=1") == nobody)
        #expect(capture.statistics()[.dnsRefused] == refused, "by the other end, not by us")
    }

    @Test func withoutTheProxyQuestionsAreRefusedAtOnce() throws {
        try serve()
        socket?.close()
        socket = nil
        let lines = try ask("192.0.2.53", "2001:db8::53")
        #expect(lines.count == 4 && lines.allSatisfy { $0 == "ECONNREFUSED" }, "\(lines)")
        #expect(capture.statistics()[.dnsRefused] == 4)
        // The next server takes over, and the aliases still stand for the same servers.
        try serve()
        #expect(try ask("192.0.2.53").count { $0.hasSuffix("192.0.2.53 53") } == 2)
    }

    @Test func theRouteComesAndGoes() throws {
        let before = try shell("ip -n \(lab.pod) -6 route show table local")
        try serve()
        #expect(try shell("ip -n \(lab.pod) -6 route show table local") != before)
        socket?.close()
        socket = nil
        proxy.close()
        try capture.detach(lab.name)
        #expect(try shell("ip -n \(lab.pod) -6 route show table local") == before)
        #expect(try ask("10.77.0.1", "hasty=1") == ["timeout", "ECONNREFUSED"])
        #expect(throws: KernelError.self) {
            try lab.withDescriptor(lab.pod) { try capture.captureDNS(of: lab.name, namespace: $0, socket: 0) }
        }
    }

    @Test func addressesThatAreNoAlias() {
        for text in ["127.0.0.1", "127.63.255.255", "127.128.0.0", "10.0.0.1", "::1", "fd63:756c:7665:7274:1::1"] {
            #expect(capture.originalDNSServer(IPAddress(text)!) == nil, "\(text)")
        }
    }
}
