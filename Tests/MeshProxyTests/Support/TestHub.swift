import MeshModel
import MeshRuntime
import MeshTestKit

@testable import MeshProxy
@testable import MeshTelemetry

/// A hub that keeps its records and lets a test answer CONNECTs.
final class TestHub: ProxyCore {
    private(set) var records: [ConnectionRecord] = []
    var answer: ((TunnelRequest, LocalWorkload) -> Void)?

    init(core: Core, limits: Limits = Limits()) {
        var settings = MeshSettings()
        settings.limits = limits
        let telemetry = CoreTelemetry(
            metrics: CoreMetrics(core: 0), log: AccessLogQueue(capacity: 2, bell: AccessLogBell()), isWaypoint: false)
        super.init(
            core: core, nodeName: "node", snapshot: MeshSnapshot(generation: 1, settings: settings),
            telemetry: telemetry, applicationLeg: nil)
    }

    override func opened(_ record: ConnectionRecord) {}
    override func closed(_ record: ConnectionRecord, wasOpen: Bool) { records.append(record) }

    override func handle(_ request: TunnelRequest, for local: LocalWorkload) {
        if let answer { answer(request, local) } else { super.handle(request, for: local) }
    }

    var reasons: [Reason] { records.map(\.reason) }
}

extension SocketAddress {
    static func test(_ host: UInt8, _ port: UInt16) -> SocketAddress {
        SocketAddress(ip: IPAddress(v4: 0x0a00_0000 | UInt32(host)), port: port)
    }
}

/// A connection whose upstream the test provides.
final class TestConnection: ProxiedConnection {
    private let request: TunnelRequest?

    init(hub: ProxyCore, downstream: ByteStream, request: TunnelRequest? = nil) {
        self.request = request
        super.init(
            hub: hub, downstream: downstream,
            record: ConnectionRecord(
                direction: request == nil ? .outbound : .inbound, source: .test(1, 4000), destination: .test(2, 80),
                startedAt: hub.core.now))
    }

    func relay(with stream: ByteStream) {
        dialled(.success(UpstreamDial.Connected(stream: stream, identity: nil)))
    }

    override func willRelay() { request?.accept(baggage: nil) }

    override func refuseDownstream(_ reason: Reason) {
        if let request { request.refuse(status: 503) } else { super.refuseDownstream(reason) }
    }
}
