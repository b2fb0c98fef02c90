/// Who wants to reach a workload, and how.
public struct AuthorizationRequest: Hashable, Sendable {
    public var destination: Workload
    /// The address that is really dialled: the workload's own and the application's port.
    public var address: SocketAddress
    /// The TCP peer.
    public var sourceIP: IPAddress
    /// The verified identity of the peer; nil for plaintext.
    public var identity: SPIFFEID?

    public init(destination: Workload, address: SocketAddress, sourceIP: IPAddress, identity: SPIFFEID?) {
        self.destination = destination
        self.address = address
        self.sourceIP = sourceIP
        self.identity = identity
    }
}

/// What policy says, and which object said it: the policy that matched, or, where ALLOW policies exist and none matched,
/// the first of them by name. No object: nothing covers the destination, or PeerAuthentication decided.
public enum Verdict: Hashable, Sendable {
    case allow(policy: ObjectName?)
    case deny(Reason, policy: ObjectName?)

    public var isAllowed: Bool {
        if case .allow = self { true } else { false }
    }
}
