internal import MeshModel
internal import MeshRuntime

/// A workload's DNS server by UDP, for the applications inside its network namespace.
final class DNSListener {
    private let core: Core
    private let service: DNSService
    private let originalServer: (SocketAddress, IPAddress, Bool) -> IPAddress?
    private var socket: DatagramSocket?

    /// Questions taken in one turn.
    private static let questionsPerTurn = 64

    /// Takes over a socket made by `Socket.bindDatagrams`.
    /// - Parameter originalServer: as `OriginalDNSServer`, asked on this core alone.
    init(
        _ descriptor: Int32, on core: Core, service: DNSService,
        originalServer: @escaping (SocketAddress, IPAddress, Bool) -> IPAddress?
    ) throws(SystemError) {
        self.core = core
        self.service = service
        self.originalServer = originalServer
        socket = try DatagramSocket(adopting: descriptor, on: core) { [unowned self] socket in receive(socket) }
    }

    /// Reads no more, and can still answer.
    func rest() { socket?.rest() }

    /// A descriptor of the same socket for somebody who goes on with it; nil when it is closed.
    func duplicate() throws(SystemError) -> Int32? { try socket?.duplicate() }

    func close() {
        socket?.close()
        socket = nil
    }

    private func receive(_ socket: DatagramSocket) {
        for _ in 0..<Self.questionsPerTurn {
            switch socket.receive(into: core.scratch) {
            case .bytes(let count, let from, let to, let isLocal):
                let server = originalServer(SocketAddress(from), SocketAddress(to).ip, isLocal)
                // A resolver for everybody who can reach the workload would be a gift to attackers.
                guard isLocal || server != nil else { break }
                service.ask(
                    UnsafeRawBufferPointer(rebasing: core.scratch[..<count]),
                    DatagramAsker(
                        socket, from: from, to: to,
                        server: server.map { SocketAddress(ip: $0, port: ProxyPort.domain) }))
            case .failed: break
            case .wouldBlock: return
            }
        }
    }
}

/// Answers from the address that was asked, as the asker's socket may be connected to it.
private final class DatagramAsker: DNSAsker {
    private weak var socket: DatagramSocket?
    private let from: RawSocketAddress
    private let to: RawSocketAddress

    init(_ socket: DatagramSocket, from: RawSocketAddress, to: RawSocketAddress, server: SocketAddress?) {
        self.socket = socket
        self.from = from
        self.to = to
        super.init(server: server, isStream: false)
    }

    override func answer(_ bytes: [UInt8]) {
        // An asker that is gone is its own loss.
        _ = bytes.withUnsafeBytes { socket?.send($0, from: to, to: from) }
    }
}
