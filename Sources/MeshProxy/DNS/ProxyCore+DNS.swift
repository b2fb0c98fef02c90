public import MeshModel
public import MeshRuntime

/// The server that an application of a workload meant whose question capture brought to the proxy; nil when it was put
/// to the proxy itself. Called on the data cores.
/// - Parameters:
///   - from: who asked.
///   - to: where the question arrived.
///   - isLocal: it came over lo.
public typealias OriginalDNSServer = @Sendable (_ from: SocketAddress, _ to: IPAddress, _ isLocal: Bool) -> IPAddress?

/// One workload's DNS on one core: made when the first question comes.
final class WorkloadDNS {
    fileprivate var service: DNSService?
    fileprivate var originalServer: OriginalDNSServer = { _, _, _ in nil }
    fileprivate(set) var listener: DNSListener?
    fileprivate var streams: [ObjectIdentifier: DNSStream] = [:]

    /// Questions that wait for an answer from upstream, by UDP or TCP.
    var openQuestions: Int { service?.inFlight ?? 0 }

    func close() {
        listener?.close()
        listener = nil
        for stream in streams.values { stream.abort() }
        service?.close()
        service = nil
    }
}

extension ProxyCore {
    /// Begins to answer a workload's DNS questions on sockets made in its namespace. One core does it for all of them,
    /// so that there is one cache to answer from.
    /// - Parameters:
    ///   - datagrams: made by `Socket.bindDatagrams`.
    ///   - streams: a listener.
    ///   - originalServer: of what comes to `datagrams`.
    public func serveDNS(
        of name: ObjectName, datagrams: Int32, streams: Int32, originalServer: @escaping OriginalDNSServer
    ) throws(SystemError) {
        guard let local = workloads[name] else {
            Socket.close(datagrams)
            return Socket.close(streams)
        }
        local.dns.originalServer = originalServer
        do throws(SystemError) {
            try listen(on: datagrams, as: .dnsDatagrams, for: local)
        } catch {
            Socket.close(streams)
            throw error
        }
        try listen(on: streams, as: .dnsStreams, for: local)
    }

    /// Takes over a socket made by `Socket.bindDatagrams`.
    func answerDNS(on datagrams: Int32, for local: LocalWorkload) throws(SystemError) {
        local.dns.listener = try DNSListener(
            datagrams, on: core, service: dnsService(of: local),
            originalServer: { [unowned dns = local.dns] in dns.originalServer($0, $1, $2) })
    }

    /// Capture was renewed: questions of a workload that is served are told apart by this from now on.
    public func setOriginalDNSServer(of name: ObjectName, _ originalServer: @escaping OriginalDNSServer) {
        workloads[name]?.dns.originalServer = originalServer
    }

    /// Ends what `serveDNS` began, but for questions on captured TCP connections.
    public func stopDNS(of name: ObjectName) {
        workloads[name]?.dns.close()
        workloads[name]?.close(.dnsStreams)
    }

    /// Takes no more questions by UDP; those taken are answered. Another process reads from the same sockets.
    func leaveDNS() {
        for local in workloads.values { local.dns.listener?.rest() }
    }

    /// Questions of all workloads that wait for an answer from upstream.
    var openQuestions: Int { workloads.values.reduce(0) { $0 + $1.dns.openQuestions } }

    /// Serves a captured connection to a DNS server; false when it is none or the workload's DNS is not captured.
    func takeDNS(_ stream: SocketStream, _ local: LocalWorkload) -> Bool {
        guard stream.localAddress.port == ProxyPort.domain, snapshot.capturesDNS(local.workload) else { return false }
        serveDNS(stream, local, server: SocketAddress(stream.localAddress))
        return true
    }

    func serveDNS(_ stream: SocketStream, _ local: LocalWorkload, server: SocketAddress?) {
        guard local.dns.streams.count < limits.dnsStreams else { return stream.reset() }
        let served = DNSStream(
            stream, on: core, service: dnsService(of: local), server: server, limits: limits,
            ended: { [weak dns = local.dns] in dns?.streams[ObjectIdentifier($0)] = nil })
        local.dns.streams[ObjectIdentifier(served)] = served
        served.start()
    }

    private func dnsService(of local: LocalWorkload) -> DNSService {
        if let service = local.dns.service { return service }
        let service = DNSService(
            core: core, transport: SocketDNSTransport(local, core: core),
            counters: DNSCounters(telemetry.metrics, local.workload),
            defaultServers: { [unowned self] in nodeResolvers },
            current: { [unowned self, unowned local] in (snapshot, local.workload) })
        local.dns.service = service
        return service
    }
}
