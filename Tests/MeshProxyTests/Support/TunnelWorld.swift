import MeshModel
import MeshRuntime
import MeshTLS
import MeshTestKit

@testable import MeshProxy

/// Certificates of one authority, at a fixed moment.
enum TestIdentity {
    static let now: Int64 = 1_800_000_000
    private static let authority = Result { try EmbeddedAuthority.create(trustDomain: "mesh.test", now: now) }

    static func named(_ account: String) -> SPIFFEID {
        SPIFFEID(trustDomain: "mesh.test", namespace: "default", serviceAccount: account)
    }

    static func context(_ account: String) throws -> TLSContext {
        let key = try PrivateKey.generate()
        let name = named(account)
        let authority = try authority.get()
        let chain = try authority.sign(CertificateRequest(key: key, identity: name), identity: name, now: now)
        let svid = try SVID(chain: chain, key: key, trustBundle: authority.trustBundle, now: now)
        return try TLSContext(svid: svid, clock: { now })
    }
}

/// Two proxies on one core, a caller behind the one and an application behind the other, and HBONE between them over
/// simulated connections:
///
///     caller ── outbound ══ TunnelClient ── network ── TunnelServer ══ inbound ── application
final class TunnelWorld {
    let network: SimulatedNetwork
    let near: TestHub
    let far: TestHub
    let caller: LocalWorkload
    let target: LocalWorkload
    /// The far ends of the transports, in the order they were made.
    private(set) var transports: [SimulatedStream] = []
    private(set) var applications: [Endpoint] = []
    private(set) var inbound: [TestConnection] = []
    /// Where a new transport's far end goes; normally to the far hub.
    var arrives: ((SimulatedStream) -> Void)?
    /// What an application sends, and whether it reads.
    var prepare: (Endpoint) -> Void = { _ in }
    var transportCapacity = 300_000
    var answersWith = 200
    let peer = SocketAddress.test(2, 15008)

    init(seed: UInt64 = 1, limits: Limits = Limits(), weather: SimulatedWeather = .calm) throws {
        network = try SimulatedNetwork(seed: seed, weather: weather)
        near = TestHub(core: network.core, limits: limits)
        far = TestHub(core: network.core, limits: limits)
        caller = try near.add(
            Self.workload("caller", 1), namespace: nil, tls: TestIdentity.context("caller"), outbound: nil,
            inbound: nil, tunnel: nil)
        target = try far.add(
            Self.workload("target", 2), namespace: nil, tls: TestIdentity.context("target"), outbound: nil,
            inbound: nil, tunnel: nil)
        caller.pool = TunnelPool(hub: near, workload: caller) { [unowned self] _ in connectTransport() }
        far.answer = { [unowned self] request, _ in answer(request) }
    }

    private static func workload(_ account: String, _ host: UInt8) -> Workload {
        Workload(
            name: ObjectName(namespace: "default", name: account), addresses: [SocketAddress.test(host, 0).ip],
            node: "node", trustDomain: "mesh.test", serviceAccount: account)
    }

    private func connectTransport() -> ByteStream {
        let (left, right) = network.pair(capacity: transportCapacity, connecting: true)
        transports.append(right)
        if let arrives { arrives(right) } else { accept(right) }
        return left
    }

    func accept(_ stream: ByteStream) { far.acceptTunnel(stream, from: .test(1, 5000), to: peer, target) }

    private func answer(_ request: TunnelRequest) {
        if answersWith != 200 { return request.refuse(status: answersWith) }
        let connection = TestConnection(
            hub: far, downstream: CheckedStream(request.stream, in: network), request: request)
        let (upstream, end) = network.pair(capacity: 70_000)
        let application = Endpoint(end, sends: 2, expects: 1, total: 0)
        prepare(application)
        applications.append(application)
        inbound.append(connection)
        connection.relay(with: CheckedStream(upstream, in: network))
        application.work()
    }

    func tunnel(to account: String = "target") -> Tunnel {
        Tunnel(
            peer: peer, authority: .test(2, 80), identity: TestIdentity.named(account), workload: target.workload,
            viaWaypoint: nil)
    }

    /// A caller's connection through the mesh, dialled.
    @discardableResult
    func call(total: Int, to account: String = "target", prepare: (Endpoint) -> Void = { _ in }) -> Endpoint {
        let (end, downstream) = network.pair(capacity: 70_000)
        let connection = TestConnection(hub: near, downstream: CheckedStream(downstream, in: network))
        let endpoint = Endpoint(end, sends: 1, expects: 2, total: total)
        prepare(endpoint)
        connection.dial = caller.dial(tunnel(to: account), client: .test(1, 4000), service: nil) {
            [unowned self, unowned connection] result in
            connection.dialled(
                result.map {
                    UpstreamDial.Connected(stream: CheckedStream($0.stream, in: network), identity: $0.identity)
                })
        }
        endpoint.work()
        return endpoint
    }

    func settle() { network.settle() }

    /// Lets time pass in steps, with everything that happens at each.
    func pass(seconds: Int) {
        for _ in 0..<seconds {
            network.step(advancing: 1_000_000_000)
            settle()
        }
    }

    /// Ends all that is left; what must be zero afterwards.
    func end() -> (leased: Int, connections: Int, sessions: Int, open: Int) {
        near.closeAll(.drain)
        far.closeAll(.drain)
        settle()
        for endpoint in applications { endpoint.close() }
        settle()
        return (
            network.core.buffers.leased, near.connections.count + far.connections.count,
            caller.pool.sessionCount + target.servers.count, network.openStreams
        )
    }
}
