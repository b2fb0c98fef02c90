import MeshModel
import MeshRuntime
import Testing

@testable import MeshHTTP

/// A core with a manual clock, one client connection through the proxy, and servers made as they are dialled.
final class World {
    static let shop = ObjectName(namespace: "default", name: "shop")
    static let second = ObjectName(namespace: "default", name: "shop-v2")

    let core: Core
    let network: SimulatedNetwork
    let upstreams: TestUpstreams
    let connection: HTTPProxyConnection
    let client: Peer

    init(
        seed: UInt64 = 1, piece: Int? = nil, capacity: Int = 1 << 20, routes: [HTTPRoute] = [],
        limits: Limits = Limits(), caller: SPIFFEID? = World.identity("caller"), server: @escaping (Peer) -> Void
    ) throws {
        core = try Core(index: 0, clock: .manual, seed: seed)
        network = SimulatedNetwork(seed: seed)
        network.largestPiece = piece
        let ports = [ServicePort(port: 80, appProtocol: .http1)]
        upstreams = TestUpstreams(
            MeshSnapshot(
                generation: 1,
                services: [Service(name: Self.shop, ports: ports), Service(name: Self.second, ports: ports)],
                routes: routes),
            network, capacity: capacity, server: server)
        let (near, far) = network.pair(capacity: capacity)
        client = Peer(far)
        connection = HTTPProxyConnection(
            near,
            facts: HTTPDownstream(service: Self.shop, port: 80, caller: caller, local: Self.identity("waypoint")),
            on: core, limits: limits, upstreams: upstreams)
        connection.start()
    }

    static func identity(_ account: String) -> SPIFFEID {
        SPIFFEID(trustDomain: "cluster.local", namespace: "default", serviceAccount: account)
    }

    var servers: [Peer] { upstreams.servers }
    var records: [HTTPRequestRecord] { upstreams.records }

    /// Lets everything happen that can happen now.
    func settle(file: StaticString = #fileID) {
        var rounds = 0
        client.work()
        for server in servers { server.work() }
        repeat {
            core.turn(advancing: 0)
            rounds += 1
            precondition(rounds < 1_000_000, "the world does not settle")
        } while network.step()
        core.turn(advancing: 0)
        while network.step() { core.turn(advancing: 0) }
    }

    func advance(seconds: Double) {
        core.turn(advancing: UInt64(seconds * 1e9))
        settle()
    }

    func send(_ text: String) {
        client.send(text)
        settle()
    }

    /// Sends a request and gives what the client got for it.
    func ask(_ text: String) -> String {
        send(text)
        return client.takeReceived()
    }

    /// Ends the world and checks that it left nothing behind.
    func finish() {
        client.close()
        settle()
        advance(seconds: 1000)
        #expect(core.buffers.leased == 0)
        #expect(upstreams.closedConnections == 1)
        #expect(servers.allSatisfy { $0.stream.peer?.isReleased ?? true })
    }
}

final class TestUpstreams: HTTPUpstreams {
    enum Dialing {
        case immediate
        case manual
        case fails(Reason)
    }

    var current: MeshSnapshot
    var dialing = Dialing.immediate
    var servers: [Peer] = []
    var dialled: [ObjectName] = []
    var records: [HTTPRequestRecord] = []
    var closedConnections = 0
    var cancelled = 0
    private let network: SimulatedNetwork
    private let capacity: Int
    private let server: (Peer) -> Void
    private var waiting: ((Result<ByteStream, UpstreamFailure>) -> Void)?

    init(_ snapshot: MeshSnapshot, _ network: SimulatedNetwork, capacity: Int, server: @escaping (Peer) -> Void) {
        current = snapshot
        self.network = network
        self.capacity = capacity
        self.server = server
    }

    override func snapshot() -> MeshSnapshot { current }

    override func dial(
        service: ObjectName, port: UInt16, for connection: HTTPProxyConnection,
        completion: @escaping (Result<ByteStream, UpstreamFailure>) -> Void
    ) {
        dialled.append(service)
        switch dialing {
        case .immediate: completion(.success(connect()))
        case .manual: waiting = completion
        case .fails(let reason): completion(.failure(UpstreamFailure(reason)))
        }
    }

    func completeDial() {
        waiting?(.success(connect()))
        waiting = nil
    }

    override func cancelDial(for connection: HTTPProxyConnection) {
        waiting = nil
        cancelled += 1
    }

    override func requestFinished(_ record: HTTPRequestRecord) { records.append(record) }
    override func connectionClosed(_ connection: HTTPProxyConnection) { closedConnections += 1 }

    private func connect() -> ByteStream {
        let (near, far) = network.pair(capacity: capacity)
        let peer = Peer(far)
        peer.behavior = server
        servers.append(peer)
        peer.work()
        return near
    }
}

/// A message as a naive reader sees it, written apart from the codec under test.
struct Message: Equatable {
    var start = ""
    var fields: [String: [String]] = [:]
    var body: [UInt8] = []

    subscript(name: String) -> String? { fields[name]?.joined(separator: ",") }

    /// Takes one whole message off the front of `bytes`, nil when there is none yet.
    static func take(from bytes: inout [UInt8], hasBody: Bool = true) -> Message? {
        var rest = bytes[...]
        func line() -> String? {
            guard let end = rest.firstIndex(of: 10) else { return nil }
            defer { rest = rest[(end + 1)...] }
            return String(decoding: rest[..<(end - 1)], as: UTF8.self)
        }
        func content(_ count: Int) -> ArraySlice<UInt8>? {
            guard rest.count >= count else { return nil }
            defer { rest = rest.dropFirst(count) }
            return rest.prefix(count)
        }
        var message = Message()
        guard let start = line() else { return nil }
        message.start = start
        while true {
            guard let field = line() else { return nil }
            if field.isEmpty { break }
            guard let colon = field.firstIndex(of: ":") else { return nil }
            let value = field[field.index(after: colon)...].drop { $0 == " " }
            message.fields[field[..<colon].lowercased(), default: []].append(String(value))
        }
        if hasBody, message["transfer-encoding"] == "chunked" {
            while true {
                guard let text = line(), let size = Int(text, radix: 16) else { return nil }
                if size == 0 { break }
                guard let data = content(size), line() == "" else { return nil }
                message.body += data
            }
            while true {
                guard let trailer = line() else { return nil }
                if trailer.isEmpty { break }
            }
        } else if hasBody, let length = message["content-length"].flatMap(Int.init) {
            guard let data = content(length) else { return nil }
            message.body = Array(data)
        }
        bytes = Array(rest)
        return message
    }
}

extension Peer {
    /// Answers each whole request with what `answer` makes of it.
    static func serving(_ answer: @escaping @Sendable (Message, Peer) -> String) -> @Sendable (Peer) -> Void {
        { peer in
            while let request = Message.take(from: &peer.received) { peer.send(answer(request, peer)) }
        }
    }

    /// A server that answers with the request's start line, and closes when the other side does.
    static let echo: @Sendable (Peer) -> Void = serving { request, _ in
        let text = "\(request.start) \(request.body.text)"
        return "HTTP/1.1 200 OK\r\ncontent-length: \(text.utf8.count)\r\n\r\n\(text)"
    }
}
