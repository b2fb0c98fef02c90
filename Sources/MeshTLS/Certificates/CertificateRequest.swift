import COpenSSL
public import MeshModel

/// A PKCS#10 request (RFC 2986) for one SVID: empty subject, one critical URI name, signed by the key it asks for.
// Sendable although it holds a pointer: the X509_REQ is complete at init and only read afterwards.
public final class CertificateRequest: @unchecked Sendable {
    let handle: OpaquePointer
    /// The identity asked for; nil when the request names none and leaves it to the signer.
    public let identity: SPIFFEID?

    deinit { X509_REQ_free(handle) }

    /// A new request for `key`'s public half.
    public init(key: PrivateKey, identity: SPIFFEID) throws(CertificateError) {
        guard let request = X509_REQ_new() else { throw .library("cannot make a certificate request") }
        var isComplete = false
        defer { if !isComplete { X509_REQ_free(request) } }
        let names = URIExtension.make([identity.description], isCritical: true)
        defer { X509_EXTENSION_free(names) }
        guard
            let names, X509_REQ_set_version(request, 0) == 1, X509_REQ_set_pubkey(request, key.handle) == 1,
            culvert_ssl_add_request_extension(request, names) == 1,
            X509_REQ_sign(request, key.handle, EVP_sha256()) > 0
        else { throw .library("cannot make a certificate request") }
        isComplete = true
        handle = request
        self.identity = identity
    }

    /// Reads a request from outside and checks that whoever made it holds the private key, that the key is strong
    /// enough, and that it names at most one identity and no other name.
    public init(pem: String) throws(CertificateError) {
        _ = OpenSSL.isReady
        let parsed = OpenSSL.withReader(pem) { bio in
            PEM_read_bio_X509_REQ(bio, nil, OpenSSL.refusePassphrase, nil)
        }
        guard let request = parsed.flatMap({ $0 }) else {
            throw CertificateError(.malformed, "not a certificate request in PEM form: \(OpenSSL.takeError())")
        }
        var isComplete = false
        defer { if !isComplete { X509_REQ_free(request) } }
        guard let key = X509_REQ_get0_pubkey(request) else {
            throw CertificateError(.malformed, "the certificate request has no readable key: \(OpenSSL.takeError())")
        }
        try PrivateKey.checkKind(key)
        guard X509_REQ_verify(request, key) == 1 else {
            throw CertificateError(
                .malformed, "the certificate request is not signed by the key it asks for: \(OpenSSL.takeError())")
        }
        let names = culvert_ssl_request_names(request)
        defer { culvert_ssl_free_names(names) }
        ERR_clear_error()
        let count = culvert_ssl_name_count(names)
        let asked = Certificate.uris(in: names).compactMap { SPIFFEID($0) }
        guard count <= 1, asked.count == count else {
            throw CertificateError(
                .identity, "the certificate request must name one SPIFFE identity and nothing else")
        }
        isComplete = true
        handle = request
        identity = asked.first
    }

    /// One PEM block.
    public var pem: String {
        OpenSSL.writing { PEM_write_bio_X509_REQ($0, handle) } ?? ""
    }
}
