import Foundation
import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// A connection that was steered to a listener in the listener map is an ordinary socket (P3 of the design's test list):
/// each call does what it does on a connection that the listener took before it was in any map.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class AcceptedSocketTests {
    let lab: Lab
    let capture: KernelCapture
    let proxy: Proxy

    init() throws {
        lab = try Lab()
        do {
            capture = try KernelCapture(options: lab.options)
            proxy = try Proxy(in: lab.namespace(lab.pod))
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        proxy.close()
        try? capture.uninstall()
        lab.tearDown()
    }

    /// Argument: a connected socket, inherited, with something to read. TCP_INFO is option 11: the state is its first
    /// byte and tcpi_bytes_received the eight at 128. TCP_ULP is 31.
    private static let probe = #"""
        import errno, fcntl, json, os, select, socket, struct, sys, termios
        s = socket.socket(fileno=int(sys.argv[1]))
        select.select([s], [], [], 5)
        result = {}
        result['queued'] = struct.unpack('i', fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0]
        result['peeked'] = len(s.recv(16, socket.MSG_PEEK))
        info = s.getsockopt(socket.IPPROTO_TCP, 11, 256)
        result['state'], result['received'] = info[0], struct.unpack_from('=Q', info, 128)[0]
        reader, writer = os.pipe()
        result['spliced'] = os.splice(s.fileno(), writer, 16, flags=os.SPLICE_F_NONBLOCK)
        result['read'] = len(os.read(reader, 16))
        result['layer'] = s.getsockopt(socket.IPPROTO_TCP, 31, 16).decode()
        try:
            s.setsockopt(socket.IPPROTO_TCP, 31, b'tls')
            result['attached'] = 'tls'
        except OSError as e:
            result['attached'] = errno.errorcode[e.errno]
        print(json.dumps(result))
        """#

    private struct Answers: Decodable, Equatable {
        let queued: Int
        let peeked: Int
        let state: Int
        let received: Int
        let spliced: Int
        let read: Int
        let layer: String
        let attached: String
    }

    private func probe(_ socket: Int32) throws -> Answers {
        defer { close(socket) }
        let outcome = try run(["python3", "-c", Self.probe, "\(socket)"])
        guard outcome.status == 0 else { throw ShellFailure(description: "probe: \(outcome.errors)") }
        return try JSONDecoder().decode(Answers.self, from: Data(outcome.output.utf8))
    }

    @Test func steeredConnectionsAreOrdinarySockets_P3() throws {
        let before = try lab.hold(in: lab.out, "10.77.0.2", CaptureConstants.inboundPort)
        defer { before.stop() }
        let ordinary = try #require(proxy.accept(proxy.inbound))
        try lab.attach(capture, proxy)
        let inbound = try lab.hold(in: lab.out, "10.77.0.2", 8080)
        defer { inbound.stop() }
        let outbound = try lab.hold(in: lab.pod, "192.0.2.1", 80)
        defer { outbound.stop() }
        let steered = [try #require(proxy.accept(proxy.inbound)), try #require(proxy.accept(proxy.outbound))]
        #expect(steered.map(\.port) == [8080, 80])

        let expected = try probe(ordinary.socket)
        #expect(expected.queued == 1 && expected.peeked == 1 && expected.received == 1 && expected.state == 1)
        #expect(expected.spliced == 1 && expected.read == 1 && expected.layer == "")
        // With kernel TLS the layer is attached; without it (or its module) that is what the kernel says. A socket that
        // is in a map itself would get EINVAL.
        #expect(["tls", "ENOENT"].contains(expected.attached))
        for accepted in steered { #expect(try probe(accepted.socket) == expected, "\(accepted)") }
    }
}
