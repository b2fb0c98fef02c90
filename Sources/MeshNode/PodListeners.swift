internal import MeshKernel
internal import MeshModel
internal import MeshRuntime

/// The proxy's listening sockets inside one workload's namespace: for every port one socket a core, in a reuseport
/// group, so that the kernel spreads connections over the cores.
struct PodListeners {
    private(set) var outbound: [Int32] = []
    private(set) var inbound: [Int32] = []
    private(set) var tunnel: [Int32] = []

    /// A port that something else in the pod already listens on.
    struct PortTaken: Error {
        let port: UInt16
        let cause: SystemError
    }

    init(in namespace: NetworkNamespace, cores: Int) throws {
        do {
            for (port, list) in [
                (ProxyPort.outbound, \PodListeners.outbound), (ProxyPort.inboundPlaintext, \.inbound),
                (ProxyPort.tunnel, \.tunnel),
            ] {
                for _ in 0..<cores {
                    do {
                        self[keyPath: list].append(try Self.listen(port, in: namespace))
                    } catch {
                        throw PortTaken(port: port, cause: error)
                    }
                }
            }
        } catch {
            close()
            throw error
        }
    }

    private static func listen(_ port: UInt16, in namespace: NetworkNamespace) throws(SystemError) -> Int32 {
        var options = ListenOptions()
        options.reusePort = true
        options.transparent = true
        return try namespace.run { () throws(SystemError) in
            try Socket.listen(
                RawSocketAddress(high: 0, low: 0, isIPv4: false, port: port),
                options: options)
        }
    }

    /// What core `index` accepts on; its descriptors are the core's from then on.
    func ofCore(_ index: Int) -> (outbound: Int32, inbound: Int32, tunnel: Int32) {
        (outbound[index], inbound[index], tunnel[index])
    }

    /// One member of each group stands for all in the capture programs.
    var first: CaptureListeners {
        CaptureListeners(outbound: outbound[0], inbound: inbound[0], tunnel: tunnel[0])
    }

    /// Closes what no core has taken over.
    mutating func close() {
        for descriptor in outbound + inbound + tunnel { Socket.close(descriptor) }
        outbound.removeAll()
        inbound.removeAll()
        tunnel.removeAll()
    }
}
