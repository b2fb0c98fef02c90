import Glibc
public import MeshTLS

/// The embedded authority's two files. Both are made on the first start; afterwards both must be there.
///
/// Two daemons that start at once agree on one pair: whoever makes the files holds a lock on the key's folder, the
/// key comes first, and nothing is ever written over. A key that others could have read is refused, because nobody knows who did.
public struct AuthorityFiles: Hashable, Sendable {
    public let certificate: String
    public let key: String

    /// Absolute paths, or relative to the working directory.
    public init(certificate: String, key: String) {
        self.certificate = certificate
        self.key = key
    }

    /// Reads the pair, or makes it when neither file exists. `now` is unix seconds.
    public func loadOrCreate(trustDomain: String, now: Int64) throws(IdentityError) -> EmbeddedAuthority {
        // A pair that is there is whole, and needs no lock: others could hold it where they can read the folder.
        if try PrivateFile.exists(certificate), try PrivateFile.exists(key) {
            return try load(trustDomain: trustDomain, now: now)
        }
        return try FolderLock.locked(FolderLock.parent(of: key)) { () throws(IdentityError) in
            try loadOrCreateAlone(trustDomain: trustDomain, now: now)
        }
    }

    private func loadOrCreateAlone(trustDomain: String, now: Int64) throws(IdentityError) -> EmbeddedAuthority {
        switch (try PrivateFile.exists(certificate), try PrivateFile.exists(key)) {
        case (true, true): return try load(trustDomain: trustDomain, now: now)
        case (false, false): return try create(trustDomain: trustDomain, now: now)
        case (true, false):
            throw IdentityError(
                .file,
                "the authority's certificate \(certificate) is there but its key \(key) is not: restore the key, "
                    + "or delete the certificate to start a new authority")
        case (false, true):
            throw IdentityError(
                .file,
                "the authority's key \(key) is there but its certificate \(certificate) is not: restore the "
                    + "certificate, or delete the key to start a new authority")
        }
    }

    private func load(trustDomain: String, now: Int64) throws(IdentityError) -> EmbeddedAuthority {
        let certificateText = try PrivateFile.read(certificate, isSecret: false)
        let keyText = try PrivateFile.read(key, isSecret: true)
        let authority: EmbeddedAuthority
        do throws(CertificateError) {
            authority = try EmbeddedAuthority(certificatePEM: certificateText, keyPEM: keyText, now: now)
        } catch {
            throw IdentityError(.authority, "\(certificate), \(key): \(error)")
        }
        if let made = authority.trustDomain, made != trustDomain {
            throw IdentityError(
                .authority,
                "\(certificate) is the authority of trust domain \(made), but the mesh's is \(trustDomain): "
                    + "set trustDomain back or give the authority other files")
        }
        return authority
    }

    private func create(trustDomain: String, now: Int64) throws(IdentityError) -> EmbeddedAuthority {
        let authority: EmbeddedAuthority
        let keyText: String
        do throws(CertificateError) {
            authority = try EmbeddedAuthority.create(trustDomain: trustDomain, now: now)
            keyText = try authority.keyPEM
        } catch {
            throw IdentityError(.authority, "cannot make an authority: \(error)")
        }
        // The key first: a certificate without its key would tell peers to trust what nobody can sign with.
        try PrivateFile.create(key, text: keyText, mode: 0o600)
        do throws(IdentityError) {
            try PrivateFile.create(certificate, text: authority.certificatePEM, mode: 0o644)
        } catch {
            unlink(key)
            throw error
        }
        return authority
    }
}
