import COpenSSL
public import MeshModel

/// An X.509-SVID with what it takes to use it: the chain to present, the key, and whom to trust.
public final class SVID: Sendable {
    public let identity: SPIFFEID
    public let certificate: Certificate
    /// Presented after the leaf; the root is omitted.
    public let intermediates: [Certificate]
    public let key: PrivateKey
    public let trustBundle: [Certificate]

    /// Unix seconds.
    public var notBefore: Int64 { certificate.notBefore }
    /// Unix seconds.
    public var notAfter: Int64 { certificate.notAfter }
    /// When half of its life is over: time to fetch the next one.
    public var halfLife: Int64 { notBefore + (notAfter - notBefore) / 2 }

    /// Checks an authority's answer: the leaf belongs to the key, carries exactly one identity, and its chain reaches
    /// the trust bundle. `chain` is leaf first; roots in it are dropped. `now` is unix seconds.
    public init(
        chain: [Certificate], key: PrivateKey, trustBundle: [Certificate], now: Int64
    ) throws(CertificateError) {
        guard let leaf = chain.first, !trustBundle.isEmpty else {
            throw CertificateError(.malformed, "the authority sent no certificate or no trust bundle")
        }
        guard leaf.matches(key) else {
            throw CertificateError(.mismatched, "the certificate is not for the key it was requested with")
        }
        switch SVIDProfile.check(leaf.handle) {
        case .identity(let found): identity = found
        case .refused(let why): throw CertificateError(.identity, why)
        }
        let between = chain.dropFirst().filter { !$0.isSelfIssued }
        try Certificate.verify(leaf, intermediates: between, roots: trustBundle, now: now)
        certificate = leaf
        intermediates = between
        self.key = key
        self.trustBundle = trustBundle
    }

    /// An SVID that nobody checked: what a peer would present that must be refused.
    package init(
        unchecked identity: SPIFFEID, certificate: Certificate, key: PrivateKey, trustBundle: [Certificate]
    ) {
        self.identity = identity
        self.certificate = certificate
        intermediates = []
        self.key = key
        self.trustBundle = trustBundle
    }
}

/// What the X.509-SVID specification asks of a leaf, beyond a valid chain.
enum SVIDProfile {
    enum Outcome {
        case identity(SPIFFEID)
        case refused(String)
    }

    /// X.509-SVID §2 (exactly one URI name), §4.1 (not an authority), §4.3 (may not sign certificates or CRLs).
    static func check(_ leaf: OpaquePointer) -> Outcome {
        let usage = X509_get_key_usage(leaf)
        // UInt32.max says that the extension is absent; then there is nothing to forbid.
        let mayAlsoSign = usage != UInt32.max && usage & UInt32(KU_KEY_CERT_SIGN | KU_CRL_SIGN) != 0
        guard X509_check_ca(leaf) == 0, !mayAlsoSign else {
            return .refused("the certificate is an authority's, not a workload's")
        }
        let uris = Certificate.uris(of: leaf)
        ERR_clear_error()
        guard uris.count == 1 else {
            return .refused("the certificate has \(uris.count) URI names instead of one SPIFFE identity")
        }
        guard let identity = SPIFFEID(uris[0]) else {
            return .refused("'\(uris[0].prefix(256))' is not spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT")
        }
        return .identity(identity)
    }
}

extension Certificate {
    /// Checks that `leaf` chains up to one of `roots` and that everything on the way is valid at `now`.
    static func verify(
        _ leaf: Certificate, intermediates: [Certificate], roots: [Certificate], now: Int64
    ) throws(CertificateError) {
        guard let store = X509_STORE_new() else { throw .library("cannot verify a chain") }
        defer { X509_STORE_free(store) }
        for root in roots {
            guard X509_STORE_add_cert(store, root.handle) == 1 else { throw .library("cannot verify a chain") }
        }
        let between = culvert_ssl_new_chain()
        defer { culvert_ssl_free_chain(between) }
        for certificate in intermediates {
            guard culvert_ssl_append(between, certificate.handle) == 1 else {
                throw .library("cannot verify a chain")
            }
        }
        guard let check = X509_STORE_CTX_new() else { throw .library("cannot verify a chain") }
        defer { X509_STORE_CTX_free(check) }
        guard X509_STORE_CTX_init(check, store, leaf.handle, between) == 1 else {
            throw .library("cannot verify a chain")
        }
        X509_STORE_CTX_set_time(check, 0, time_t(now))
        let isVerified = X509_verify_cert(check) == 1
        ERR_clear_error()
        guard !isVerified else { return }
        let code = X509_STORE_CTX_get_error(check)
        let text = String(cString: X509_verify_cert_error_string(Int(code)))
        switch code {
        case X509_V_ERR_CERT_HAS_EXPIRED: throw CertificateError(.expired, "the certificate chain: \(text)")
        case X509_V_ERR_CERT_NOT_YET_VALID: throw CertificateError(.notYetValid, "the certificate chain: \(text)")
        default:
            throw CertificateError(
                .untrusted, "the certificate does not chain up to the trust bundle: \(text)")
        }
    }
}
