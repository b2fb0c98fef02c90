public import MeshModel
public import MeshTLS

/// What a signer gives for a request.
public struct SignedCertificate: Sendable {
    /// Leaf first, then what leads to a root.
    public let chain: [Certificate]
    /// Whom the holder shall trust.
    public let trustBundle: [Certificate]

    public init(chain: [Certificate], trustBundle: [Certificate]) {
        self.chain = chain
        self.trustBundle = trustBundle
    }
}

/// Whoever turns a request into an SVID: the embedded authority, the node's identity socket, a CA elsewhere.
public protocol CertificateSigner: Sendable {
    /// Signs `request` for `identity`, or throws an `IdentityError` (or its own error) that says why not.
    func sign(_ request: CertificateRequest, identity: SPIFFEID) async throws -> SignedCertificate
}

/// The authority inside this process.
public struct EmbeddedSigner: CertificateSigner {
    private let authority: EmbeddedAuthority
    private let lifetimeSeconds: Int64
    private let clock: IdentityClock

    public init(
        _ authority: EmbeddedAuthority, lifetimeSeconds: Int64 = EmbeddedAuthority.defaultLifetimeSeconds,
        clock: IdentityClock = .system
    ) {
        self.authority = authority
        self.lifetimeSeconds = lifetimeSeconds
        self.clock = clock
    }

    public func sign(_ request: CertificateRequest, identity: SPIFFEID) async throws -> SignedCertificate {
        let chain = try authority.sign(
            request, identity: identity, lifetimeSeconds: lifetimeSeconds, now: clock.now())
        return SignedCertificate(chain: chain, trustBundle: authority.trustBundle)
    }
}
