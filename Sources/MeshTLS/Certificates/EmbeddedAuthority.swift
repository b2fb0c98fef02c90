import COpenSSL
public import MeshModel

/// A certificate authority inside the process: a root of its own, or an intermediate handed to it with its root.
public final class EmbeddedAuthority: Sendable {
    /// Signs the SVIDs.
    public let certificate: Certificate
    /// Between `certificate` and a root, `certificate` first; empty when it is the root itself.
    public let intermediates: [Certificate]
    /// What peers must trust.
    public let trustBundle: [Certificate]
    /// From the `spiffe://DOMAIN` name that SPIFFE gives signing certificates (X.509-SVID §4.1); nil where there is none.
    public let trustDomain: String?
    private let key: PrivateKey

    /// A root made here is valid this long.
    public static let rootLifetimeSeconds: Int64 = 10 * 365 * 86_400
    /// An SVID is valid this long unless asked otherwise.
    public static let defaultLifetimeSeconds: Int64 = 24 * 3600
    /// Certificates start this much in the past, for peers whose clocks are behind.
    public static let backdatingSeconds: Int64 = 60

    /// A new P-256 root for a trust domain. `now` is unix seconds.
    public static func create(trustDomain: String, now: Int64) throws(CertificateError) -> EmbeddedAuthority {
        // Any identity of the domain parses exactly when the domain itself is well formed.
        guard SPIFFEID("spiffe://\(trustDomain)/ns/n/sa/s") != nil else {
            throw CertificateError(
                .identity, "'\(trustDomain)' is not a trust domain: use lower-case letters, digits, '.', '-' and '_'")
        }
        let key = try PrivateKey.generate()
        var root = CertificateTemplate(notBefore: now - backdatingSeconds, notAfter: now + rootLifetimeSeconds)
        root.isAuthority = true
        root.commonName = authorityName(of: trustDomain)
        root.uris = ["spiffe://\(trustDomain)"]
        let certificate = try root.issue(for: key, by: nil, signer: key)
        return try EmbeddedAuthority(certificates: [certificate], key: key, now: now)
    }

    /// Reads an authority: its certificate first, then, unless that is a root, the certificates up to a root.
    /// `now` is unix seconds.
    public convenience init(certificatePEM: String, keyPEM: String, now: Int64) throws(CertificateError) {
        let certificates = try Certificate.bundle(pem: certificatePEM)
        let key = try PrivateKey(pem: keyPEM)
        try self.init(certificates: certificates, key: key, now: now)
    }

    init(certificates: [Certificate], key: PrivateKey, now: Int64) throws(CertificateError) {
        let own = certificates[0]
        guard own.matches(key) else {
            throw CertificateError(
                .mismatched,
                "the authority's key does not belong to its certificate: restore the pair that was made together")
        }
        guard certificates.allSatisfy(\.isAuthority) else {
            throw CertificateError(
                .notAnAuthority, "the authority's certificate may not sign others (basicConstraints CA:TRUE is missing)"
            )
        }
        let roots = certificates.filter(\.isSelfIssued)
        guard !roots.isEmpty else {
            throw CertificateError(
                .untrusted, "the authority's certificate has an issuer but its root is not in the file: append it")
        }
        for certificate in certificates {
            try EmbeddedAuthority.checkValidity(of: certificate, now: now)
        }
        let between = certificates.filter { !$0.isSelfIssued }
        try Certificate.verify(own, intermediates: between, roots: roots, now: now)
        certificate = own
        intermediates = between
        trustBundle = roots
        trustDomain = EmbeddedAuthority.trustDomain(of: own)
        self.key = key
    }

    /// PKCS#8 text, for the authority's file.
    public var keyPEM: String {
        get throws(CertificateError) { try key.pem }
    }

    /// The authority's certificate and what leads to its root, root included.
    public var certificatePEM: String {
        let chain = certificate.isSelfIssued ? [certificate] : intermediates + trustBundle
        return chain.map(\.pem).joined()
    }

    /// Signs an SVID and gives the chain to present: leaf first, root omitted. The SVID ends no later than the authority.
    public func sign(
        _ request: CertificateRequest, identity: SPIFFEID,
        lifetimeSeconds: Int64 = EmbeddedAuthority.defaultLifetimeSeconds, now: Int64
    ) throws(CertificateError) -> [Certificate] {
        guard SPIFFEID(identity.description) == identity else {
            throw CertificateError(.identity, "'\(identity)' is not a SPIFFE identity")
        }
        if let asked = request.identity, asked != identity {
            throw CertificateError(.identity, "the request is for \(asked), but its sender is \(identity)")
        }
        if let trustDomain, trustDomain != identity.trustDomain {
            throw CertificateError(
                .identity, "the authority of trust domain \(trustDomain) does not sign for \(identity)")
        }
        try EmbeddedAuthority.checkValidity(of: certificate, now: now)
        guard lifetimeSeconds > 0, let publicKey = X509_REQ_get0_pubkey(request.handle) else {
            throw CertificateError(.malformed, "nothing to sign: no key, or a lifetime of \(lifetimeSeconds) seconds")
        }
        let limit = trustBundle.map(\.notAfter).max() ?? certificate.notAfter
        var leaf = CertificateTemplate(
            notBefore: now - EmbeddedAuthority.backdatingSeconds,
            notAfter: min(now + lifetimeSeconds, certificate.notAfter, limit))
        leaf.uris = [identity.description]
        return try [leaf.issue(publicKey: publicKey, by: certificate, signer: key)] + intermediates
    }

    private static func authorityName(of trustDomain: String) -> String {
        // X.520 bounds a common name at 64 characters; the whole domain is in the URI name.
        String("culvert \(trustDomain)".prefix(64))
    }

    private static func trustDomain(of certificate: Certificate) -> String? {
        let scheme = "spiffe://"
        let domains = certificate.uris.filter { $0.hasPrefix(scheme) }.map { $0.dropFirst(scheme.count) }
        guard domains.count == 1, let domain = domains.first, !domain.isEmpty, !domain.contains("/") else { return nil }
        return String(domain)
    }

    private static func checkValidity(of certificate: Certificate, now: Int64) throws(CertificateError) {
        let name = certificate.subject
        guard now <= certificate.notAfter else {
            throw CertificateError(
                .expired,
                "the authority's certificate '\(name)' expired at \(certificate.notAfter) (unix seconds), "
                    + "now is \(now): replace certificate and key")
        }
        guard now >= certificate.notBefore else {
            throw CertificateError(
                .notYetValid,
                "the authority's certificate '\(name)' is not valid before \(certificate.notBefore) (unix seconds), "
                    + "now is \(now): check the clock")
        }
    }
}
