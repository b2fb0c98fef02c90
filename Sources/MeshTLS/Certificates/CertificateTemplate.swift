import COpenSSL

/// What a certificate will say. The authority fills it in; tests do too, to craft certificates that must be refused.
package struct CertificateTemplate: Sendable {
    package enum Usage: String, Sendable {
        case clientAuth
        case serverAuth
    }

    /// nil leaves the subject empty, which makes the alternative names critical (RFC 5280 §4.2.1.6).
    package var commonName: String?
    package var uris: [String] = []
    package var isAuthority = false
    package var usages: [Usage] = [.clientAuth, .serverAuth]
    /// Signatures in handshakes as well as on certificates.
    package var isHybrid = false
    /// Unix seconds.
    package var notBefore: Int64
    /// Unix seconds.
    package var notAfter: Int64

    package init(notBefore: Int64, notAfter: Int64) {
        self.notBefore = notBefore
        self.notAfter = notAfter
    }

    /// Signs the template for `key`. Without an issuer the certificate is issued by itself, then `signer` is `key`.
    package func issue(
        for key: PrivateKey, by issuer: Certificate?, signer: PrivateKey
    ) throws(CertificateError) -> Certificate {
        try issue(publicKey: key.handle, by: issuer, signer: signer)
    }

    func issue(
        publicKey: OpaquePointer, by issuer: Certificate?, signer: PrivateKey
    ) throws(CertificateError) -> Certificate {
        _ = OpenSSL.isReady
        guard let certificate = X509_new() else { throw .library("cannot make a certificate") }
        var isComplete = false
        defer { if !isComplete { X509_free(certificate) } }
        // Version 3 is written as 2 (RFC 5280 §4.1.2.1).
        guard
            X509_set_version(certificate, 2) == 1,
            CertificateTemplate.setRandomSerial(of: certificate),
            ASN1_TIME_set(X509_getm_notBefore(certificate), time_t(notBefore)) != nil,
            ASN1_TIME_set(X509_getm_notAfter(certificate), time_t(notAfter)) != nil,
            X509_set_pubkey(certificate, publicKey) == 1,
            setSubject(of: certificate),
            X509_set_issuer_name(
                certificate, X509_get_subject_name(issuer?.handle ?? certificate)) == 1,
            addExtensions(to: certificate, issuer: issuer?.handle ?? certificate),
            X509_sign(certificate, signer.handle, EVP_sha256()) > 0
        else { throw .library("cannot sign a certificate") }
        isComplete = true
        return Certificate(owning: certificate)
    }

    /// 128 random bits: unique without a record of what was issued (RFC 5280 §4.1.2.2 allows up to 159).
    private static func setRandomSerial(of certificate: OpaquePointer) -> Bool {
        var bytes: (UInt64, UInt64) = (0, 0)
        let number = withUnsafeMutableBytes(of: &bytes) { buffer -> OpaquePointer? in
            guard RAND_bytes(buffer.baseAddress, Int32(buffer.count)) == 1 else { return nil }
            return BN_bin2bn(buffer.baseAddress, Int32(buffer.count), nil)
        }
        guard let number else { return false }
        defer { BN_free(number) }
        return BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nil
    }

    private func setSubject(of certificate: OpaquePointer) -> Bool {
        guard let commonName else { return true }
        let bytes = Array(commonName.utf8)
        return X509_NAME_add_entry_by_NID(
            X509_get_subject_name(certificate), NID_commonName, MBSTRING_UTF8, bytes, Int32(bytes.count), -1, 0) == 1
    }

    private func addExtensions(to certificate: OpaquePointer, issuer: OpaquePointer) -> Bool {
        var texts: [(Int32, String)] = [(NID_subject_key_identifier, "hash")]
        if isAuthority {
            // It signs workloads and nothing that signs in turn.
            texts.append((NID_basic_constraints, "critical,CA:TRUE,pathlen:0"))
            texts.append((NID_key_usage, "critical,keyCertSign,cRLSign" + (isHybrid ? ",digitalSignature" : "")))
        } else {
            texts.append((NID_basic_constraints, "critical,CA:FALSE"))
            texts.append((NID_key_usage, "critical,digitalSignature"))
            if !usages.isEmpty {
                texts.append((NID_ext_key_usage, usages.map(\.rawValue).joined(separator: ",")))
            }
        }
        if issuer != certificate {
            texts.append((NID_authority_key_identifier, "keyid:always"))
        }
        for (nid, text) in texts {
            guard let made = culvert_ssl_extension(certificate, issuer, nid, text) else { return false }
            defer { X509_EXTENSION_free(made) }
            guard X509_add_ext(certificate, made, -1) == 1 else { return false }
        }
        guard !uris.isEmpty else { return true }
        guard let names = URIExtension.make(uris, isCritical: commonName == nil) else { return false }
        defer { X509_EXTENSION_free(names) }
        return X509_add_ext(certificate, names, -1) == 1
    }
}

enum URIExtension {
    /// A subject alternative name of these URIs; the caller frees it.
    static func make(_ uris: [String], isCritical: Bool) -> OpaquePointer? {
        let copies = uris.map { strdup($0) }
        defer { copies.forEach { free($0) } }
        let pointers = copies.map { UnsafePointer<CChar>($0) }
        return culvert_ssl_uri_extension(pointers, pointers.count, isCritical ? 1 : 0)
    }
}
