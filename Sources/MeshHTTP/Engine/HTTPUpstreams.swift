public import MeshModel
public import MeshRuntime

/// Why no stream to a backend could be had.
public struct UpstreamFailure: Error, Hashable, Sendable {
    public var reason: Reason

    public init(_ reason: Reason) {
        self.reason = reason
    }

    /// What the client is told.
    var status: Int {
        switch reason {
        case .policyDeny, .policyNoAllow, .policyChanged: 403
        case .upstreamConnectTimeout, .handshakeTimeout, .requestTimeout, .idleTimeout: 504
        case .unknownPort, .noBackend: 500
        case .upstreamReset, .protocolError, .tlsFailure, .peerIdentity, .badAuthority, .headersTooLarge: 502
        default: 503
        }
    }
}

/// The world outside of an `HTTPProxyConnection`: configuration, endpoints, records. Subclassed by the waypoint;
/// one instance serves all connections of a core, and everything happens on that core.
open class HTTPUpstreams {
    public init() {}

    /// The configuration in force. Asked once a request.
    open func snapshot() -> MeshSnapshot { fatalError("abstract") }

    /// Opens a stream to an endpoint of `service`. `completion` is called once, at once or later, on the same core,
    /// with a stream that is connected or on its way; not at all after `cancelDial`.
    open func dial(
        service: ObjectName, port: UInt16, for connection: HTTPProxyConnection,
        completion: @escaping (Result<ByteStream, UpstreamFailure>) -> Void
    ) {
        fatalError("abstract")
    }

    /// The stream this connection is waiting for, at most one, is not wanted any more.
    open func cancelDial(for connection: HTTPProxyConnection) {}

    /// A request has its answer, or failed. Called once a request, also for one that could not be parsed.
    open func requestFinished(_ record: HTTPRequestRecord) {}

    /// The connection released its streams. Nothing follows.
    open func connectionClosed(_ connection: HTTPProxyConnection) {}
}

/// What a downstream connection is, decided before its first request: at the HBONE CONNECT.
public struct HTTPDownstream: Sendable {
    /// The service asked for, and its port.
    public var service: ObjectName
    public var port: UInt16
    /// Who calls, as its TLS certificate says; nil for a plaintext caller.
    public var caller: SPIFFEID?
    /// Who we are.
    public var local: SPIFFEID?
    /// `Host` for a request of HTTP/1.0 that names none.
    public var defaultHost: String

    public init(
        service: ObjectName, port: UInt16, caller: SPIFFEID?, local: SPIFFEID?, defaultHost: String? = nil
    ) {
        self.service = service
        self.port = port
        self.caller = caller
        self.local = local
        self.defaultHost = defaultHost ?? "\(service.name).\(service.namespace)"
    }

    /// The value of `x-forwarded-client-cert`, in Envoy's form.
    var clientCertificate: String? {
        guard let caller else { return nil }
        guard let local else { return "URI=\(caller)" }
        return "By=\(local);URI=\(caller)"
    }
}
