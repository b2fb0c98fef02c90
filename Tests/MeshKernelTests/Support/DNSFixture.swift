import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// Capture at one level with the test as the DNS server of the workload, and one more at the other end of its link.
final class DNSFixture {
    let fixture: LevelFixture
    private let core: Core
    private var server: DatagramSocket?
    private var others: [DatagramSocket] = []
    /// Questions as they arrived: text, the server they were meant for, and whether they came over lo.
    private(set) var asked: [(text: String, server: IPAddress?, isLocal: Bool)] = []

    var lab: Lab { fixture.lab }
    var capture: NodeCapture { fixture.capture }
    /// Rules of the packet filter capture.
    var hasRules: Bool { fixture.level >= .l2 }

    /// The workload is captured, its DNS not yet.
    static func with(_ level: CaptureLevel, _ body: (DNSFixture) throws -> Void) throws {
        try LevelFixture.with(level) { fixture in
            try fixture.attach()
            let dns = try DNSFixture(fixture)
            defer { dns.close() }
            try body(dns)
        }
    }

    init(_ fixture: LevelFixture) throws {
        self.fixture = fixture
        core = try Core(index: 0)
    }

    func close() {
        stop()
        for socket in others { socket.close() }
        others = []
    }

    /// Captures, and answers every question with its own text from the address it came to.
    func serve() throws {
        let descriptor = try lab.namespace(lab.pod).run { () throws(SystemError) in
            try Socket.bindDatagrams(port: CaptureConstants.dnsPort)
        }
        let origins = try lab.withDescriptor(lab.pod) {
            try capture.captureDNS(of: lab.name, namespace: $0, socket: descriptor)
        }
        server = try DatagramSocket(adopting: descriptor, on: core) { [unowned self] socket in
            while case .bytes(let count, let from, let to, let isLocal) = socket.receive(into: core.scratch) {
                let bytes = UnsafeRawBufferPointer(rebasing: core.scratch[..<count])
                let meant = origins.server(
                    from: SocketAddress(ip: Self.ip(from), port: from.port), to: Self.ip(to), isLocal: isLocal)
                asked.append((String(decoding: bytes, as: UTF8.self), meant, isLocal))
                _ = socket.send(bytes, from: to, to: from)
            }
        }
    }

    /// As a killed daemon's socket closes.
    func stop() {
        server?.close()
        server = nil
    }

    func forgetQuestions() { asked = [] }

    /// Answers with a word of its own on port 53 of a namespace.
    func serve(in namespace: String, saying word: String) throws {
        let descriptor = try lab.namespace(namespace).run { () throws(SystemError) in
            try Socket.bindDatagrams(port: 53)
        }
        others.append(
            try DatagramSocket(adopting: descriptor, on: core) { [unowned self] socket in
                while case .bytes(_, let from, let to, _) = socket.receive(into: core.scratch) {
                    _ = Array(word.utf8).withUnsafeBytes { socket.send($0, from: to, to: from) }
                }
            })
    }

    private static func ip(_ address: RawSocketAddress) -> IPAddress {
        address.isIPv4
            ? IPAddress(v4: UInt32(truncatingIfNeeded: address.low))
            : IPAddress(high: address.high, low: address.low)
    }

    /// Runs the client while the test answers; see `client`.
    func ask(in namespace: String? = nil, _ arguments: String...) throws -> [String] {
        let client = try Background(
            lab.inside(namespace ?? lab.pod) + ["python3", "-c", Self.client] + arguments)
        while !client.hasEnded { core.turn(waitingAtMost: 20_000_000) }
        return client.rest().split(separator: "\n").map(String.init)
    }

    /// Arguments: servers, [device=NAME], [mark=NUMBER], [port=NUMBER], [own=PORT], [hasty=1] where no answer is to
    /// come. Asks each by an unconnected socket for all of them and then by a connected one of its own, with its address
    /// as the question, and prints where the answer came from; or the error.
    private static let client = #"""
        import errno, socket, sys
        print('ready', flush=True)
        options = dict(a.split('=') for a in sys.argv[1:] if '=' in a)
        patience = 0.3 if 'hasty' in options else 10
        port = int(options.get('port', 53))
        servers = [a for a in sys.argv[1:] if '=' not in a]
        def make(family):
            made = socket.socket(family, socket.SOCK_DGRAM)
            made.settimeout(patience)
            if 'mark' in options: made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(options['mark']))
            return made
        def show(what):
            try: print(what())
            except OSError as e: print(errno.errorcode.get(e.errno, 'timeout'))
        for family in (socket.AF_INET, socket.AF_INET6):
            mine = [a for a in servers if (':' in a) == (family == socket.AF_INET6)]
            loose = make(family)
            if 'own' in options and mine: loose.bind(('', int(options['own'])))
            for server in mine:
                def unconnected():
                    loose.sendto(server.encode(), (server, port))
                    text, peer = loose.recvfrom(100)
                    return 'loose %s %s %d' % (text.decode(), peer[0], peer[1])
                show(unconnected)
                tied = make(family)
                if 'device' in options:
                    tied.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options['device'].encode())
                def connected():
                    tied.connect((server, port))
                    tied.send(server.encode())
                    text, peer = tied.recvfrom(100)
                    return 'tied %s %s %d %s %d' % ((text.decode(), peer[0], peer[1]) + tied.getpeername()[:2])
                show(connected)
        """#

    /// One socket of an application that asks the server at the other end again and again.
    final class Asker {
        private final class Box { var answer: String? }

        private let dns: DNSFixture
        private let socket: DatagramSocket
        private let box = Box()

        init(_ dns: DNSFixture) throws {
            self.dns = dns
            let descriptor = try dns.lab.namespace(dns.lab.pod).run { () throws(SystemError) in
                try Socket.connectDatagrams(to: .v4(0x0a4d_0001, port: 53))
            }
            socket = try DatagramSocket(adopting: descriptor, on: dns.core) { [box] socket in
                switch socket.receive(into: dns.core.scratch) {
                case .bytes(let count, _, _, _):
                    box.answer = String(decoding: dns.core.scratch[..<count], as: UTF8.self)
                case .failed(let failure): box.answer = "\(failure)"
                case .wouldBlock: break
                }
            }
        }

        /// What came back; nil: nothing did.
        func ask() -> String? {
            box.answer = nil
            _ = Array("ours".utf8).withUnsafeBytes { socket.send($0) }
            for _ in 0..<500 where box.answer == nil { dns.core.turn(waitingAtMost: 20_000_000) }
            return box.answer
        }

        func close() { socket.close() }
    }
}
