internal import Logging
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime

/// The DNS server of each workload that wants one: its sockets inside the workload, the core that answers, the capture
/// that brings the questions.
struct PodDNS: Sendable {
    private let plane: DataPlane
    private let capture: NodeCapture
    private let logger: Logger

    init(plane: DataPlane, capture: NodeCapture, logger: Logger) {
        self.plane = plane
        self.capture = capture
        self.logger = logger
    }

    /// The two sockets of one workload's server.
    struct Sockets {
        let datagrams: Int32
        let streams: Int32
    }

    /// Serves a workload that is captured. What is asked between capture and the core's start waits in the socket.
    /// - Parameter inherited: of the daemon before this one, which may still read from them; nil: new ones are made.
    func start(_ name: ObjectName, in namespace: NetworkNamespace, inherited: Sockets?) throws {
        let sockets = try inherited ?? Self.open(in: namespace)
        let (datagrams, streams) = (sockets.datagrams, sockets.streams)
        let origins: DNSOrigins
        do {
            origins = try capture.captureDNS(of: name, namespace: namespace.descriptor, socket: datagrams)
        } catch {
            Socket.close(datagrams)
            Socket.close(streams)
            throw error
        }
        plane.post(to: core(of: name)) { [logger] hub in
            do {
                try hub.serveDNS(
                    of: name, datagrams: datagrams, streams: streams, originalServer: origins.server)
            } catch {
                logger.error("DNS of \(name): \(error)")
            }
        }
    }

    private static func open(in namespace: NetworkNamespace) throws -> Sockets {
        do {
            let datagrams = try namespace.run { () throws(SystemError) in
                try Socket.bindDatagrams(port: ProxyPort.dns)
            }
            do {
                var options = ListenOptions()
                options.reusePort = true
                let streams = try namespace.run { () throws(SystemError) in
                    try Socket.listen(
                        RawSocketAddress(high: 0, low: 0, isIPv4: false, port: ProxyPort.dns), options: options)
                }
                return Sockets(datagrams: datagrams, streams: streams)
            } catch {
                Socket.close(datagrams)
                throw error
            }
        } catch {
            throw NodeError(
                "its DNS is not captured: port \(ProxyPort.dns) cannot be had inside the workload (\(error)): stop what "
                    + "listens on it, or set the annotation \(Annotations.dnsCapture): \"false\"")
        }
    }

    /// Brings the capture of a workload that is served up to date: another daemon may have changed it.
    func renew(_ name: ObjectName, in namespace: NetworkNamespace, datagrams: Int32) throws {
        let origins = try capture.captureDNS(of: name, namespace: namespace.descriptor, socket: datagrams)
        plane.post { $0.setOriginalDNSServer(of: name, origins.server) }
    }

    /// Likewise that of one which is not to be captured.
    func release(_ name: ObjectName) throws { try capture.releaseDNS(of: name) }

    /// Questions go where they are meant to from now on.
    func stop(_ name: ObjectName) throws {
        try release(name)
        plane.post { $0.stopDNS(of: name) }
    }

    /// One core answers all questions of a workload by UDP, so that one cache knows all answers.
    private func core(of name: ObjectName) -> Int {
        // FNV-1a: the same name stays on its core when the daemon restarts.
        let hash = "\(name)".utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
        return Int(hash % UInt64(plane.coreCount))
    }
}
