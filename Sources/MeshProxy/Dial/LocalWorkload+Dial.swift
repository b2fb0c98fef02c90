public import MeshModel
public import MeshRuntime

extension LocalWorkload {
    public typealias DialCompletion = (Result<UpstreamDial.Connected, UpstreamDial.Failure>) -> Void

    /// Reaches `address` in clear text, from the workload's own namespace and address.
    public func dial(_ address: SocketAddress, completion: @escaping DialCompletion) -> UpstreamDial {
        UpstreamDial.socket(on: hub.core, timeout: hub.limits.connectTimeoutNanoseconds, completion: completion) {
            () throws(SystemError) in try connect(to: address)
        }
    }

    /// Reaches `tunnel.authority` through a session to `tunnel.peer` as this workload's identity.
    public func dial(
        _ tunnel: Tunnel, client: SocketAddress, service: Service?, completion: @escaping DialCompletion
    ) -> UpstreamDial {
        UpstreamDial.tunnel(
            on: hub.core, timeout: hub.limits.tunnelResponseTimeoutNanoseconds, identity: tunnel.identity,
            completion: completion
        ) { answer in
            pool.connect(tunnel, client: client, service: service, completion: answer)
        }
    }

    /// Reaches this workload's own application at `address`, from `client`'s address where capture allows it.
    func dialApplication(
        _ address: SocketAddress, as client: SocketAddress, completion: @escaping DialCompletion
    ) -> UpstreamDial {
        UpstreamDial.socket(on: hub.core, timeout: hub.limits.connectTimeoutNanoseconds, completion: completion) {
            () throws(SystemError) in try connectApplication(address, as: client)
        }
    }
}
