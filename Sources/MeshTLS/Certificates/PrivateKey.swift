import COpenSSL

/// A private key: ECDSA P-256 when made here. Its text exists only for the embedded authority's file;
/// a workload's key never leaves memory.
// Sendable although it holds a pointer: an EVP_PKEY is not changed after init, its reference count is atomic, and
// OpenSSL documents concurrent use of one key for signing as safe.
public final class PrivateKey: @unchecked Sendable {
    let handle: OpaquePointer

    /// Takes over the reference.
    private init(owning handle: OpaquePointer) {
        self.handle = handle
    }

    deinit { EVP_PKEY_free(handle) }

    /// A new P-256 key.
    public static func generate() throws(CertificateError) -> PrivateKey {
        _ = OpenSSL.isReady
        guard let handle = culvert_ssl_generate_p256() else { throw .library("cannot make a P-256 key") }
        return PrivateKey(owning: handle)
    }

    /// Reads the first private key of PEM text (PKCS#8, SEC1 or PKCS#1). An encrypted key is refused: a daemon has
    /// nobody to ask for the pass phrase.
    public convenience init(pem: String) throws(CertificateError) {
        _ = OpenSSL.isReady
        let parsed = OpenSSL.withReader(pem) { bio in
            PEM_read_bio_PrivateKey(bio, nil, OpenSSL.refusePassphrase, nil)
        }
        guard let handle = parsed.flatMap({ $0 }) else {
            let detail = OpenSSL.takeError()
            let isEncrypted = pem.contains("ENCRYPTED")
            throw CertificateError(
                .malformed,
                isEncrypted
                    ? "the private key is encrypted: store it without a pass phrase"
                    : "not a private key in PEM form: \(detail)")
        }
        self.init(owning: handle)
        try PrivateKey.checkKind(handle)
    }

    /// PKCS#8 text, not encrypted.
    public var pem: String {
        get throws(CertificateError) {
            guard
                let text = OpenSSL.writing({ bio in
                    PEM_write_bio_PKCS8PrivateKey(bio, handle, nil, nil, 0, nil, nil)
                })
            else { throw .library("cannot write the private key") }
            return text
        }
    }

    /// Refuses keys too weak to carry or sign an identity, and kinds that are not meant for X.509-SVIDs.
    static func checkKind(_ handle: OpaquePointer) throws(CertificateError) {
        let bits = EVP_PKEY_get_bits(handle)
        let isElliptic = EVP_PKEY_is_a(handle, "EC") == 1 && bits >= 256
        let isRSA = EVP_PKEY_is_a(handle, "RSA") == 1 && bits >= 2048
        guard isElliptic || isRSA else {
            throw CertificateError(
                .unsuitableKey, "the key is neither ECDSA of 256 bits or more nor RSA of 2048 bits or more")
        }
    }
}
