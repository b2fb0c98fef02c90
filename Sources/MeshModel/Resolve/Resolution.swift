/// What an address turned out to be, as far as it is known: for logs and metrics.
public struct Destination: Hashable, Sendable {
    public var service: Service?
    public var servicePort: ServicePort?
    public var workload: Workload?

    public init(service: Service? = nil, servicePort: ServicePort? = nil, workload: Workload? = nil) {
        self.service = service
        self.servicePort = servicePort
        self.workload = workload
    }
}

/// An HBONE stream to open.
public struct Tunnel: Hashable, Sendable {
    /// Where to connect: the workload's or the waypoint's address, port 15008.
    public var peer: SocketAddress
    /// The CONNECT authority: the endpoint itself, or what the application asked for when a waypoint decides.
    public var authority: SocketAddress
    /// The only identity the peer may present.
    public var identity: SPIFFEID
    /// The workload behind `peer`.
    public var workload: Workload
    /// Set when the peer is an instance of this waypoint.
    public var viaWaypoint: ObjectName?

    public init(
        peer: SocketAddress, authority: SocketAddress, identity: SPIFFEID, workload: Workload,
        viaWaypoint: ObjectName? = nil
    ) {
        self.peer = peer
        self.authority = authority
        self.identity = identity
        self.workload = workload
        self.viaWaypoint = viaWaypoint
    }
}

/// What to do with a captured connection.
public enum Resolution: Hashable, Sendable {
    /// Nothing is known about the address, or it is the caller's own: plain TCP as asked.
    case passthrough(SocketAddress)
    /// An endpoint that is not meshed: plain TCP to this address.
    case plain(SocketAddress, Destination)
    /// An endpoint that this node captures itself: no TLS between (tier T0).
    case local(SocketAddress, Workload, Destination)
    case tunnel(Tunnel, Destination)
    case refuse(Reason, Destination)
}

/// The ports of the proxy inside every captured network namespace.
public enum ProxyPort {
    public static let outbound: UInt16 = 15001
    public static let inboundPlaintext: UInt16 = 15006
    public static let tunnel: UInt16 = 15008
    /// The proxy's own DNS server, on loopback.
    public static let dns: UInt16 = 15053
    /// Where DNS is served (RFC 1035 §4.2): what is captured.
    public static let domain: UInt16 = 53

    /// Ports on which the proxy would call itself.
    public static func isRecursive(_ port: UInt16) -> Bool {
        port == outbound || port == inboundPlaintext || port == tunnel || port == dns
    }
}
