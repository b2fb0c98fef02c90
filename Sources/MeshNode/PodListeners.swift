internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime

/// The proxy's listening sockets inside one workload's namespace: for every port one socket a core, in a reuseport
/// group, so that the kernel spreads connections over the cores; or those of the daemon before this one.
struct PodListeners {
    /// For each purpose and core.
    private var sockets: [ListenerPurpose: [[Int32]]] = [:]

    /// A port that something else in the pod already listens on.
    struct PortTaken: Error {
        let port: UInt16
        let cause: SystemError
    }

    init(in namespace: NetworkNamespace, cores: Int) throws {
        do {
            for purpose in ListenerPurpose.ofEveryWorkload {
                for _ in 0..<cores {
                    do {
                        sockets[purpose, default: []].append([try Self.listen(purpose.port, in: namespace)])
                    } catch {
                        throw PortTaken(port: purpose.port, cause: error)
                    }
                }
            }
        } catch {
            close()
            throw error
        }
    }

    /// Goes on with the sockets of another daemon, which may have had another number of cores. No socket is added: it
    /// would join the group at once and take connections that nobody accepts if this daemon fails.
    init(_ inherited: InheritedListeners, cores: Int) throws {
        do {
            for purpose in ListenerPurpose.ofEveryWorkload {
                var shares = [[Int32]](repeating: [], count: cores)
                for (index, socket) in (inherited.sockets[purpose] ?? []).enumerated() {
                    shares[index % cores].append(socket)
                }
                sockets[purpose] = shares
            }
            // A core more than there are sockets accepts on one that another core has as well.
            for (purpose, shares) in sockets {
                let handed = inherited.sockets[purpose] ?? []
                for index in shares.indices where shares[index].isEmpty {
                    sockets[purpose]?[index] = [try Socket.duplicate(handed[index % handed.count])]
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

    /// What core `index` accepts on; the descriptors are the core's from then on.
    func ofCore(_ index: Int) -> [(purpose: ListenerPurpose, socket: Int32)] {
        ListenerPurpose.ofEveryWorkload.flatMap { purpose in
            (sockets[purpose]?[index] ?? []).map { (purpose, $0) }
        }
    }

    /// One member of each group stands for all in the capture programs.
    var first: CaptureListeners {
        CaptureListeners(outbound: first(.outbound), inbound: first(.inbound), tunnel: first(.tunnel))
    }

    private func first(_ purpose: ListenerPurpose) -> Int32 { sockets[purpose]?.first?.first ?? -1 }

    /// Closes what the cores from `index` on were to have.
    func close(fromCore index: Int) {
        for shares in sockets.values { for socket in shares[index...].joined() { Socket.close(socket) } }
    }

    /// Closes what no core has taken over.
    func close() {
        for socket in sockets.values.joined().joined() { Socket.close(socket) }
    }
}

extension ListenerPurpose {
    fileprivate var port: UInt16 {
        switch self {
        case .outbound: ProxyPort.outbound
        case .inbound: ProxyPort.inboundPlaintext
        case .tunnel: ProxyPort.tunnel
        case .dnsDatagrams, .dnsStreams: ProxyPort.dns
        }
    }
}
