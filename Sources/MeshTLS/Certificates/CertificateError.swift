/// Why a key, certificate, request or authority was refused. The text names the thing and what to do about it.
public struct CertificateError: Error, Hashable, Sendable, CustomStringConvertible {
    /// What kind of trouble, for callers that decide by it.
    public enum Reason: Hashable, Sendable {
        /// Not PEM, not X.509, a broken signature of a request.
        case malformed
        /// A key of a kind or size that is not accepted.
        case unsuitableKey
        /// A certificate and a key, or a certificate and its issuer, that do not belong together.
        case mismatched
        case expired
        case notYetValid
        /// A certificate that may not sign others where a signer is needed, or the other way round.
        case notAnAuthority
        /// No SPIFFE identity, several, or not the one asked for.
        case identity
        /// The chain does not reach the trust bundle.
        case untrusted
        /// The library failed: no memory, no entropy.
        case library
    }

    public let reason: Reason
    public let description: String

    public init(_ reason: Reason, _ description: String) {
        self.reason = reason
        self.description = description
    }

    /// A failure of the library itself, with what it says.
    @inline(never)
    static func library(_ doing: String) -> CertificateError {
        CertificateError(.library, "\(doing): \(OpenSSL.takeError())")
    }
}
