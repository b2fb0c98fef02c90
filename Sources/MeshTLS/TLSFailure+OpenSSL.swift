import COpenSSL

extension TLSFailure {
    /// What the library's error queue of this thread says, emptied.
    @inline(never)
    static func fromErrorQueue() -> TLSFailure {
        let code = ERR_peek_error()
        let detail = OpenSSL.takeError()
        guard code != 0 else { return TLSFailure(.protocolViolation("the session cannot go on")) }
        guard ERR_GET_LIB(code) == ERR_LIB_SSL else { return TLSFailure(.protocolViolation(detail)) }
        let reason = ERR_GET_REASON(code)
        // An alert from the peer is its number above this offset.
        if reason > SSL_AD_REASON_OFFSET, reason <= SSL_AD_REASON_OFFSET + 255 {
            return fromAlert(UInt8(reason - SSL_AD_REASON_OFFSET))
        }
        switch reason {
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW, SSL_R_NO_SHARED_CIPHER:
            return TLSFailure(.protocolVersion)
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return TLSFailure(.noCertificate)
        case SSL_R_NO_APPLICATION_PROTOCOL: return TLSFailure(.alpn)
        default: return TLSFailure(.protocolViolation(detail))
        }
    }

    /// Two alerts say the same as what we find out ourselves when the peer is the stricter side.
    private static func fromAlert(_ number: UInt8) -> TLSFailure {
        switch number {
        case UInt8(SSL_AD_PROTOCOL_VERSION): TLSFailure(.protocolVersion)
        case UInt8(SSL_AD_NO_APPLICATION_PROTOCOL): TLSFailure(.alpn)
        default: TLSFailure(.alert(number))
        }
    }

    /// What chain verification found.
    static func fromVerification(_ code: Int32, depth: Int32) -> TLSFailure {
        switch code {
        case X509_V_ERR_CERT_HAS_EXPIRED: return TLSFailure(.expired)
        case X509_V_ERR_CERT_NOT_YET_VALID: return TLSFailure(.notYetValid)
        case X509_V_ERR_INVALID_PURPOSE where depth == 0: return TLSFailure(.wrongPurpose)
        default: return TLSFailure(.untrusted(String(cString: X509_verify_cert_error_string(Int(code)))))
        }
    }
}
