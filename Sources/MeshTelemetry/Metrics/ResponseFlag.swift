public import MeshModel

extension Reason {
    /// Istio's `response_flags` of a connection that ended for this reason: ztunnel's words.
    public var connectionFlag: String {
        switch self {
        case .none, .upstreamReset, .downstreamReset, .reset, .idleTimeout, .drain, .workloadGone: "-"
        case .policyDeny, .policyNoAllow, .mutualTLSRequired, .policyChanged, .recursiveCall, .badAuthority: "DENY"
        case .noHealthyUpstream, .unknownPort, .waypointUnavailable, .upstreamConnectFailed, .upstreamConnectTimeout,
            .upstreamRefused, .limitReached, .proxyUnavailable, .routeNotFound, .noBackend:
            "CONNECT"
        case .tlsFailure, .handshakeTimeout: "TLS_FAILURE"
        case .peerIdentity, .identityUnavailable: "IDENTITY_ERROR"
        case .protocolError, .requestTimeout, .headersTooLarge, .badRequest: "H2_HANDSHAKE_FAILURE"
        }
    }

    /// Istio's `response_flags` of a request: Envoy's words.
    public var requestFlag: String {
        switch self {
        case .none: "-"
        case .policyDeny, .policyNoAllow, .mutualTLSRequired, .policyChanged: "UAEX"
        case .noHealthyUpstream, .unknownPort, .waypointUnavailable: "UH"
        case .upstreamConnectFailed, .upstreamRefused, .tlsFailure, .peerIdentity, .identityUnavailable,
            .recursiveCall, .badAuthority, .proxyUnavailable, .handshakeTimeout:
            "UF"
        case .upstreamConnectTimeout: "UF"
        case .upstreamReset, .reset: "UC"
        case .downstreamReset: "DC"
        case .requestTimeout: "UT"
        case .limitReached: "UO"
        case .idleTimeout: "SI"
        case .protocolError, .badRequest, .headersTooLarge: "DPE"
        case .drain, .workloadGone: "LR"
        case .routeNotFound: "NR"
        case .noBackend: "NC"
        }
    }
}
