import MeshModel
import MeshRuntime
import MeshTelemetry
import Testing

@testable import MeshProxy
@testable import MeshWire

/// A workload's DNS with upstreams that a test plays, on a core whose time stands still until it is moved.
final class DNSWorld {
    let core: Core
    let service: DNSService
    let upstreams: PlayedUpstreams
    let metrics = CoreMetrics(core: 0)
    private let registry = MetricsRegistry()
    private let servers: ServerBox

    init(seed: UInt64 = 1, limits adjust: (inout Limits) -> Void = { _ in }) throws {
        let core = try Core(index: 0, clock: .manual, seed: seed)
        self.core = core
        upstreams = PlayedUpstreams(core: core, seed: seed)
        var settings = MeshSettings()
        adjust(&settings.limits)
        let workload = Workload(
            name: ObjectName(namespace: "default", name: "client"), addresses: [IPAddress(v4: 0x0a00_0001)], node: "n")
        var legacy = workload
        legacy.name = ObjectName(namespace: "default", name: "legacy")
        legacy.addresses = [IPAddress(v4: 0x0a00_0014)]
        legacy.hostname = "ledger.example.com"
        let snapshot = MeshSnapshot(
            settings: settings, workloads: [workload, legacy],
            services: [
                Service(
                    name: ObjectName(namespace: "default", name: "web"),
                    addresses: [IPAddress(v4: 0x0a60_0001), IPAddress(high: 0xfd96 << 48, low: 1)]),
                Service(
                    name: ObjectName(namespace: "default", name: "four"), addresses: [IPAddress(v4: 0x0a60_0004)]),
            ])
        let servers = ServerBox()
        service = DNSService(
            core: core, transport: upstreams, counters: DNSCounters(metrics, workload),
            defaultServers: { servers.list }, current: { (snapshot, workload) })
        self.servers = servers
    }

    private final class ServerBox { var list: [SocketAddress] = [] }

    func setDefaultServers(_ servers: [SocketAddress]) { self.servers.list = servers }

    /// Moves time on in steps, so that what waits for one another comes in order.
    func advance(_ milliseconds: Int) {
        for _ in 0..<max(1, milliseconds / 10) { core.turn(advancing: 10_000_000) }
    }

    @discardableResult
    func ask(
        _ name: String, type: DNSType = .a, id: UInt16 = 0x1111, of server: SocketAddress? = DNSWorld.server(1),
        payload: UInt16? = nil, isStream: Bool = false
    ) -> PlayedAsker {
        let asker = PlayedAsker(server: server, isStream: isStream)
        let bytes = Self.question(name, type: type, id: id, payload: payload)
        bytes.withUnsafeBytes { _ = service.ask($0, asker) }
        return asker
    }

    static func server(_ last: UInt32) -> SocketAddress {
        SocketAddress(ip: IPAddress(v4: 0xc000_0200 + last), port: 53)
    }

    static func question(_ name: String, type: DNSType = .a, id: UInt16 = 0x1111, payload: UInt16? = nil) -> [UInt8] {
        var bytes: [UInt8] = [UInt8(id >> 8), UInt8(id & 0xff), 1, 0, 0, 1, 0, 0, 0, 0, 0, payload == nil ? 0 : 1]
        // As it is spelt.
        for label in name.split(separator: ".") { bytes += [UInt8(label.utf8.count)] + Array(label.utf8) }
        bytes.append(0)
        bytes += [UInt8(type.rawValue >> 8), UInt8(type.rawValue & 0xff), 0, 1]
        if let payload { bytes += [0, 0, 41, UInt8(payload >> 8), UInt8(payload & 0xff), 0, 0, 0, 0, 0, 0] }
        return bytes
    }

    /// What has been counted so far, as Prometheus text.
    func metricsText() -> String {
        registry.absorb(metrics.drain())
        return registry.render(mesh: MeshSnapshot())
    }
}

/// What a client got.
final class PlayedAsker: DNSAsker {
    private(set) var answers: [[UInt8]] = []

    override func answer(_ bytes: [UInt8]) { answers.append(bytes) }

    var message: DNSMessage? { answers.first.flatMap { try? $0.parsed() } }
    var code: DNSResponseCode? { message?.responseCode }

    /// Type, TTL and data of the records but OPT.
    var records: [(type: DNSType, ttl: UInt32, data: [UInt8])] {
        guard let bytes = answers.first, let message else { return [] }
        var found: [(type: DNSType, ttl: UInt32, data: [UInt8])] = []
        bytes.withUnsafeBytes { raw in
            message.forEachRecord(in: raw) { record in
                guard record.type != .opt else { return }
                found.append((record.type, record.ttl(in: raw), Array(raw[record.data])))
            }
        }
        return found
    }

    /// The first address's last byte, by which upstreams' answers are told apart.
    var mark: UInt8? { records.first { $0.type == .a }?.data.last }
    var ttl: UInt32? { records.first?.ttl }
}

/// Upstreams that say what `reply` says.
final class PlayedUpstreams: DNSTransport {
    struct Query {
        let bytes: [UInt8]
        let server: SocketAddress
        let overTCP: Bool

        var message: DNSMessage? { try? bytes.parsed() }
    }

    enum Reply {
        case nothing
        case refused
        /// After so many milliseconds.
        case message([UInt8], after: Int)
        case several([[UInt8]])
    }

    private(set) var queries: [Query] = []
    var reply: (Query) -> Reply = { _ in .nothing }
    private let core: Core
    private var random: CoreRandom

    init(core: Core, seed: UInt64) {
        self.core = core
        random = CoreRandom(seed: seed)
    }

    override func nextID() -> UInt16 { UInt16.random(in: .min ... .max, using: &random) }

    override func exchange(
        _ query: [UInt8], with server: SocketAddress, overTCP: Bool, for lookup: DNSLookup
    ) -> DNSExchange {
        let asked = Query(bytes: query, server: server, overTCP: overTCP)
        queries.append(asked)
        let exchange = PlayedExchange(lookup, core)
        switch reply(asked) {
        case .nothing: break
        case .refused: exchange.schedule([nil], after: 1)
        case .message(let bytes, let delay): exchange.schedule([bytes], after: delay)
        case .several(let list): exchange.schedule(list, after: 1)
        }
        return exchange
    }

    // MARK: Messages

    /// An answer to a query: so many addresses that end in `mark`.
    static func answer(
        _ query: Query, mark: UInt8 = 1, ttl: UInt32 = 60, count: Int = 1, code: DNSResponseCode = .noError
    ) -> [UInt8] {
        guard let message = query.message else { return [] }
        var writer = DNSWriter()
        query.bytes.withUnsafeBytes { writer.startResponse(to: message, $0, code, isAuthoritative: false) }
        for index in 0..<count {
            writer.addAddress(IPAddress(v4: 0x0101_0000 + UInt32(index) << 8 + UInt32(mark)), of: .question, ttl: ttl)
        }
        writer.finishResponse(to: message, limit: query.overTCP ? 65535 : message.answerLimit)
        return writer.bytes
    }

    /// "No such name", with the zone's SOA.
    static func denial(_ query: Query, ttl: UInt32) -> [UInt8] {
        guard let message = query.message else { return [] }
        var bytes = answer(query, count: 0, code: .nameError)
        let end = bytes.count - (message.edns == nil ? 0 : 11)
        let seconds = [UInt8(ttl >> 24), UInt8(ttl >> 16 & 0xff), UInt8(ttl >> 8 & 0xff), UInt8(ttl & 0xff)]
        let data = [0, 0] + [UInt8](repeating: 0, count: 16) + seconds
        bytes.insert(contentsOf: [0xc0, 12, 0, 6, 0, 1] + seconds + [0, UInt8(data.count)] + data, at: end)
        bytes[9] = 1
        return bytes
    }
}

/// Gives what was scheduled unless it is cancelled before; nil stands for an error of the socket.
private final class PlayedExchange: DNSExchange {
    private final class Due: Timer {
        var lookup: DNSLookup?
        var messages: [[UInt8]?] = []

        override func fire() {
            for message in messages {
                guard let lookup else { return }
                if let message { message.withUnsafeBytes { lookup.received($0) } } else { lookup.failed() }
            }
        }
    }

    private let due = Due()
    private let core: Core

    init(_ lookup: DNSLookup, _ core: Core) {
        self.core = core
        due.lookup = lookup
    }

    func schedule(_ messages: [[UInt8]?], after milliseconds: Int) {
        due.messages = messages
        core.schedule(due, after: UInt64(milliseconds) * 1_000_000)
    }

    override func cancel() {
        due.lookup = nil
        core.cancel(due)
    }
}
