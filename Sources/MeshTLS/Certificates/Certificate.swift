import COpenSSL
public import MeshModel

/// An X.509 certificate, read once into values.
// Sendable although it holds a pointer: the X509 is complete at init (its cached extensions are computed there, under
// OpenSSL's own lock), never changed afterwards, and its reference count is atomic.
public final class Certificate: @unchecked Sendable {
    let handle: OpaquePointer
    /// Unix seconds.
    public let notBefore: Int64
    /// Unix seconds; valid up to and including this second.
    public let notAfter: Int64
    /// RFC 2253 text; empty for an SVID.
    public let subject: String
    /// RFC 2253 text.
    public let issuer: String
    /// Lower-case hexadecimal.
    public let serial: String
    /// Every URI among the subject alternative names, SPIFFE or not.
    public let uris: [String]
    /// May sign other certificates.
    public let isAuthority: Bool
    /// Issuer and subject are one name: a root, or a certificate that nobody vouches for.
    public let isSelfIssued: Bool

    /// The URIs that are workload identities.
    public var spiffeIDs: [SPIFFEID] { uris.compactMap { SPIFFEID($0) } }

    /// Takes over the reference.
    init(owning handle: OpaquePointer) {
        self.handle = handle
        notBefore = culvert_ssl_unix_time(X509_get0_notBefore(handle))
        notAfter = culvert_ssl_unix_time(X509_get0_notAfter(handle))
        subject = Certificate.text(of: X509_get_subject_name(handle))
        issuer = Certificate.text(of: X509_get_issuer_name(handle))
        serial = Certificate.serial(of: handle)
        uris = Certificate.uris(of: handle)
        isAuthority = X509_check_ca(handle) != 0
        isSelfIssued = X509_NAME_cmp(X509_get_subject_name(handle), X509_get_issuer_name(handle)) == 0
        ERR_clear_error()
    }

    deinit { X509_free(handle) }

    /// Reads the first certificate of PEM text.
    public convenience init(pem: String) throws(CertificateError) {
        _ = OpenSSL.isReady
        let parsed = OpenSSL.withReader(pem) { bio in
            PEM_read_bio_X509(bio, nil, OpenSSL.refusePassphrase, nil)
        }
        guard let handle = parsed.flatMap({ $0 }) else {
            throw CertificateError(.malformed, "not a certificate in PEM form: \(OpenSSL.takeError())")
        }
        self.init(owning: handle)
    }

    /// Most certificates one PEM text may hold.
    public static let bundleLimit = 64

    /// Reads every certificate of PEM text, in order. Refuses text without any, with a broken one, or with more than
    /// `bundleLimit`.
    public static func bundle(pem: String) throws(CertificateError) -> [Certificate] {
        _ = OpenSSL.isReady
        let parsed = try OpenSSL.withReader(pem) { (bio) throws(CertificateError) in
            var certificates: [Certificate] = []
            while let handle = PEM_read_bio_X509(bio, nil, OpenSSL.refusePassphrase, nil) {
                certificates.append(Certificate(owning: handle))
                guard certificates.count <= bundleLimit else {
                    throw CertificateError(.malformed, "more than \(bundleLimit) certificates in one bundle")
                }
            }
            // Reading ends with "no start line" at the end of the text; anything else is a broken entry.
            let last = ERR_peek_last_error()
            let isEnd = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE
            let detail = OpenSSL.takeError()
            guard isEnd else {
                throw CertificateError(.malformed, "certificate \(certificates.count + 1) is broken: \(detail)")
            }
            return certificates
        }
        guard let parsed else { throw .library("cannot read certificates") }
        guard !parsed.isEmpty else {
            throw CertificateError(.malformed, "no certificate in PEM form in the text")
        }
        return parsed
    }

    /// One PEM block.
    public var pem: String {
        OpenSSL.writing { PEM_write_bio_X509($0, handle) } ?? ""
    }

    /// The encoded certificate.
    public var der: [UInt8] {
        let count = i2d_X509(handle, nil)
        guard count > 0 else { return [] }
        return [UInt8](unsafeUninitializedCapacity: Int(count)) { buffer, initialized in
            var cursor = buffer.baseAddress
            initialized = Int(max(i2d_X509(handle, &cursor), 0))
        }
    }

    /// Whether `key` is the private half of this certificate's key.
    public func matches(_ key: PrivateKey) -> Bool {
        guard let own = X509_get0_pubkey(handle) else { return false }
        let isEqual = EVP_PKEY_eq(own, key.handle) == 1
        ERR_clear_error()
        return isEqual
    }

    /// Whether `authority`'s key made this certificate's signature.
    func isSigned(by authority: Certificate) -> Bool {
        guard let key = X509_get0_pubkey(authority.handle) else { return false }
        let isValid = X509_verify(handle, key) == 1
        ERR_clear_error()
        return isValid
    }
}

extension Certificate {
    private static func text(of name: OpaquePointer?) -> String {
        guard let name else { return "" }
        return OpenSSL.writing { culvert_ssl_print_name($0, name) } ?? ""
    }

    private static func serial(of handle: OpaquePointer) -> String {
        guard let number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(handle), nil) else { return "" }
        defer { BN_free(number) }
        guard let text = BN_bn2hex(number) else { return "" }
        defer { CRYPTO_free(text, #file, Int32(#line)) }
        return String(cString: text).lowercased()
    }

    /// The URIs of a certificate. A name with bytes that are not UTF-8 comes out changed, so it never equals an identity.
    static func uris(of handle: OpaquePointer) -> [String] {
        let names = culvert_ssl_certificate_names(handle)
        defer { culvert_ssl_free_names(names) }
        return uris(in: names)
    }

    static func uris(in names: OpaquePointer?) -> [String] {
        var uris: [String] = []
        for index in 0..<culvert_ssl_name_count(names) {
            var count: Int32 = 0
            guard let bytes = culvert_ssl_uri(names, index, &count) else { continue }
            uris.append(String(decoding: UnsafeRawBufferPointer(start: bytes, count: Int(count)), as: UTF8.self))
        }
        return uris
    }
}
