/// Why a connection or request ended or was refused. The same word stands in the access log, in the metric label
/// `reason`, in `culvert why` and in the BPF counters.
public enum Reason: String, Sendable, Hashable, CaseIterable {
    /// Nothing went wrong.
    case none = "-"
    // Decided by policy at the destination.
    case policyDeny = "policy_deny"
    case policyNoAllow = "policy_no_allow"
    case mutualTLSRequired = "mtls_required"
    case policyChanged = "policy_changed"
    // Decided by resolve at the source.
    case noHealthyUpstream = "no_healthy_upstream"
    case unknownPort = "unknown_port"
    case waypointUnavailable = "waypoint_unavailable"
    case recursiveCall = "recursive_call"
    // Failures on the way.
    case upstreamConnectFailed = "upstream_connect_failed"
    case upstreamConnectTimeout = "upstream_connect_timeout"
    case upstreamRefused = "upstream_refused"
    case upstreamReset = "upstream_reset"
    case downstreamReset = "downstream_reset"
    /// One end aborted a direct connection; the kernel does not say which.
    case reset = "reset"
    case tlsFailure = "tls_failure"
    case peerIdentity = "peer_identity"
    case identityUnavailable = "identity_unavailable"
    case handshakeTimeout = "handshake_timeout"
    case requestTimeout = "request_timeout"
    case protocolError = "protocol_error"
    case badAuthority = "bad_authority"
    case headersTooLarge = "headers_too_large"
    case limitReached = "limit_reached"
    case idleTimeout = "idle_timeout"
    case drain = "drain"
    case workloadGone = "workload_gone"
    case proxyUnavailable = "proxy_unavailable"
    // L7.
    case routeNotFound = "route_not_found"
    case badRequest = "bad_request"
    case noBackend = "no_backend"
}
