public import MeshModel
internal import MeshRuntime

extension LocalWorkload {
    public typealias DialCompletion = (Result<UpstreamDial.Connected, UpstreamDial.Failure>) -> Void

    /// Carries out a decision of `resolve` as this workload. `client` is who the peer is told asks.
    public func dial(
        _ resolution: Resolution, client: SocketAddress?, completion: @escaping DialCompletion
    ) -> UpstreamDial {
        switch resolution {
        case .passthrough(let address), .plain(let address, _), .local(let address, _, _):
            dial(address, completion: completion)
        case .tunnel(let tunnel, let destination):
            dial(tunnel, client: client, service: destination.service, completion: completion)
        case .refuse(let reason, _):
            .failed(on: hub.core, UpstreamDial.Failure(reason: reason, detail: reason.sentence), completion: completion)
        }
    }

    /// Reaches `address` in clear text, from the workload's own namespace and address.
    func dial(_ address: SocketAddress, completion: @escaping DialCompletion) -> UpstreamDial {
        UpstreamDial.socket(on: hub.core, timeout: hub.limits.connectTimeoutNanoseconds, completion: completion) {
            () throws(SystemError) in try connect(to: address)
        }
    }

    /// Reaches `tunnel.authority` through a session to `tunnel.peer` as this workload's identity.
    func dial(
        _ tunnel: Tunnel, client: SocketAddress?, service: Service?, completion: @escaping DialCompletion
    ) -> UpstreamDial {
        UpstreamDial.tunnel(
            on: hub.core, timeout: hub.limits.tunnelResponseTimeoutNanoseconds, identity: tunnel.identity,
            throughWaypoint: tunnel.viaWaypoint != nil, completion: completion
        ) { answer in
            pool.connect(tunnel, client: client, service: service, completion: answer)
        }
    }

    /// Reaches this workload's own application at `address`, from `client`'s address where capture allows it.
    func dialApplication(
        _ address: SocketAddress, as client: SocketAddress, apart: Bool = false, completion: @escaping DialCompletion
    ) -> UpstreamDial {
        UpstreamDial.socket(on: hub.core, timeout: hub.limits.connectTimeoutNanoseconds, completion: completion) {
            () throws(SystemError) in try connectApplication(address, as: client, apart: apart)
        }
    }
}
