public import MeshModel

/// Why a TLS session failed. Made once per failed session, never on the steady path.
public struct TLSFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// The peer proved an identity that is not the one expected.
        case peerIdentity(expected: String, got: String)
        /// The peer's identity belongs to another trust domain than our own.
        case trustDomain(expected: String, got: String)
        /// The peer's certificate is not an X.509-SVID: none or several URI names, or an authority's certificate.
        case notAnSVID(String)
        /// The chain does not reach our trust bundle.
        case untrusted(String)
        /// A certificate of the peer's chain has expired.
        case expired
        /// A certificate of the peer's chain is not valid yet: somebody's clock is wrong.
        case notYetValid
        /// The certificate is not meant for this side of TLS (extended key usage).
        case wrongPurpose
        /// The client sent no certificate.
        case noCertificate
        /// The peer speaks nothing from TLS 1.3 on.
        case protocolVersion
        /// The peer does not speak HTTP/2 by ALPN.
        case alpn
        /// The peer refused us with this alert (RFC 8446 §6).
        case alert(UInt8)
        /// The connection ended without close_notify: what was received may be cut short.
        case truncated
        /// The peer keeps the session busy with messages other than data.
        case flood
        /// Bytes that are not TLS, do not authenticate, or come out of order.
        case protocolViolation(String)
    }

    public let reason: Reason

    public init(_ reason: Reason) {
        self.reason = reason
    }

    public var description: String {
        switch reason {
        case .peerIdentity(let expected, let got): "peer identity: expected \(expected), got \(got)"
        case .trustDomain(let expected, let got): "peer identity: expected trust domain \(expected), got \(got)"
        case .notAnSVID(let why): "peer certificate is not an X.509-SVID: \(why)"
        case .untrusted(let why): "peer certificate is not trusted: \(why)"
        case .expired: "peer certificate has expired"
        case .notYetValid: "peer certificate is not valid yet"
        case .wrongPurpose: "peer certificate is not for this use (extended key usage)"
        case .noCertificate: "peer sent no certificate"
        case .protocolVersion: "peer does not speak TLS 1.3"
        case .alpn: "peer does not offer h2 (ALPN)"
        case .alert(let number): "peer refused with alert \(number) (\(TLSFailure.alertName(number)))"
        case .truncated: "connection ended without close_notify"
        case .flood: "peer sends too many TLS messages without data"
        case .protocolViolation(let why): "TLS protocol violation: \(why)"
        }
    }

    /// The mesh's word for it, in logs and metrics.
    public var meshReason: MeshModel.Reason {
        switch reason {
        case .peerIdentity, .trustDomain, .notAnSVID: .peerIdentity
        default: .tlsFailure
        }
    }

    /// The names of RFC 8446 §6.2 that occur in TLS 1.3.
    private static func alertName(_ number: UInt8) -> String {
        switch number {
        case 0: "close_notify"
        case 10: "unexpected_message"
        case 20: "bad_record_mac"
        case 22: "record_overflow"
        case 40: "handshake_failure"
        case 42: "bad_certificate"
        case 43: "unsupported_certificate"
        case 44: "certificate_revoked"
        case 45: "certificate_expired"
        case 46: "certificate_unknown"
        case 47: "illegal_parameter"
        case 48: "unknown_ca"
        case 49: "access_denied"
        case 50: "decode_error"
        case 51: "decrypt_error"
        case 70: "protocol_version"
        case 71: "insufficient_security"
        case 80: "internal_error"
        case 86: "inappropriate_fallback"
        case 90: "user_canceled"
        case 109: "missing_extension"
        case 110: "unsupported_extension"
        case 112: "unrecognized_name"
        case 113: "bad_certificate_status_response"
        case 115: "unknown_psk_identity"
        case 116: "certificate_required"
        case 120: "no_application_protocol"
        default: "unknown"
        }
    }
}
