import COpenSSL
import MeshModel

// OpenSSL calls these from inside a session's methods, on the session's core. They are set on the shared contexts and
// find their session through the SSL.

private func session(of ssl: OpaquePointer?) -> TLSSession? {
    guard let ssl, let pointer = SSL_get_ex_data(ssl, 0) else { return nil }
    return Unmanaged<TLSSession>.fromOpaque(pointer).takeUnretainedValue()
}

/// Replaces the library's own verification: the chain as always, then who it is.
func verifyPeer(_ check: OpaquePointer?, _ argument: UnsafeMutableRawPointer?) -> Int32 {
    let pointer = X509_STORE_CTX_get_ex_data(check, SSL_get_ex_data_X509_STORE_CTX_idx())
    guard let check, let pointer, let session = session(of: OpaquePointer(pointer)) else { return 0 }
    guard let (failure, code) = session.verify(check, ssl: OpaquePointer(pointer)) else { return 1 }
    session.failure = failure
    // The code picks the alert.
    X509_STORE_CTX_set_error(check, code)
    return 0
}

extension TLSSession {
    /// nil when the peer is who it must be; otherwise why not, and the verification code for the alert.
    fileprivate func verify(_ check: OpaquePointer, ssl: OpaquePointer) -> (TLSFailure, Int32)? {
        // A server that agreed on no protocol is known by now: EncryptedExtensions precede the certificate.
        guard isServer || hasAgreedOnHTTP2(ssl) else { return (TLSFailure(.alpn), X509_V_ERR_APPLICATION_VERIFICATION) }
        X509_STORE_CTX_set_time(check, 0, time_t(context.clock()))
        guard X509_verify_cert(check) == 1 else {
            let code = X509_STORE_CTX_get_error(check)
            return (.fromVerification(code, depth: X509_STORE_CTX_get_error_depth(check)), code)
        }
        guard let leaf = X509_STORE_CTX_get0_cert(check) else {
            return (TLSFailure(.noCertificate), X509_V_ERR_CERT_REJECTED)
        }
        let identity: SPIFFEID
        switch SVIDProfile.check(leaf) {
        case .identity(let found): identity = found
        case .refused(let why): return (TLSFailure(.notAnSVID(why)), X509_V_ERR_CERT_REJECTED)
        }
        // Our trust bundle vouches for our own trust domain and for no other (SPIFFE Trust Domain and Bundle §3).
        let domain = context.svid.identity.trustDomain
        guard identity.trustDomain == domain else {
            return (
                TLSFailure(.trustDomain(expected: domain, got: identity.description)), X509_V_ERR_CERT_REJECTED
            )
        }
        guard isServer || expected.contains(identity) else {
            let names = expected.map(\.description).joined(separator: " or ")
            return (
                TLSFailure(.peerIdentity(expected: names, got: identity.description)), X509_V_ERR_CERT_REJECTED
            )
        }
        peerIdentity = identity
        peerNotAfter = culvert_ssl_unix_time(X509_get0_notAfter(leaf))
        return nil
    }

    private func hasAgreedOnHTTP2(_ ssl: OpaquePointer) -> Bool {
        var name: UnsafePointer<UInt8>?
        var count: UInt32 = 0
        SSL_get0_alpn_selected(ssl, &name, &count)
        return UnsafeBufferPointer(start: name, count: Int(count)).elementsEqual("h2".utf8)
    }
}

/// A server takes `h2` or ends the handshake with no_application_protocol (RFC 7301 §3.2).
func selectApplicationProtocol(
    _ ssl: OpaquePointer?, _ selected: UnsafeMutablePointer<UnsafePointer<UInt8>?>?,
    _ selectedCount: UnsafeMutablePointer<UInt8>?, _ offered: UnsafePointer<UInt8>?, _ offeredCount: UInt32,
    _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    let names = UnsafeBufferPointer(start: offered, count: Int(offeredCount))
    var index = 0
    while index < names.count {
        let count = Int(names[index])
        let start = index + 1
        guard count > 0, start + count <= names.count else { break }
        if names[start..<start + count].elementsEqual("h2".utf8) {
            // Points into the client's hello, which outlives this call as the library asks for.
            selected?.pointee = names.baseAddress! + start
            selectedCount?.pointee = UInt8(count)
            return SSL_TLSEXT_ERR_OK
        }
        index = start + count
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL
}

/// A client that sends no ALPN at all is refused like one that offers something else: the library would only ask
/// `selectApplicationProtocol` when the extension is there.
func inspectClientHello(
    _ ssl: OpaquePointer?, _ alert: UnsafeMutablePointer<Int32>?, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    var bytes: UnsafePointer<UInt8>?
    var count = 0
    // A hello of TLS 1.2 has no supported_versions; it fails by its version right after this.
    let isOld = SSL_client_hello_get0_ext(ssl, UInt32(TLSEXT_TYPE_supported_versions), &bytes, &count) != 1
    let names = UInt32(TLSEXT_TYPE_application_layer_protocol_negotiation)
    guard !isOld, SSL_client_hello_get0_ext(ssl, names, &bytes, &count) != 1 else { return SSL_CLIENT_HELLO_SUCCESS }
    session(of: ssl)?.failure = TLSFailure(.alpn)
    alert?.pointee = SSL_AD_NO_APPLICATION_PROTOCOL
    return SSL_CLIENT_HELLO_ERROR
}

/// Counts what arrives on the handshake layer once data flows: KeyUpdate and session tickets. The library answers and
/// discards them without a bound.
func countMessage(
    _ isWrite: Int32, _ version: Int32, _ type: Int32, _ bytes: UnsafeRawPointer?, _ count: Int, _ ssl: OpaquePointer?,
    _ argument: UnsafeMutableRawPointer?
) {
    guard type == SSL3_RT_HANDSHAKE, isWrite == 0 else { return }
    guard let wire = argument?.assumingMemoryBound(to: MemoryWire.self) else { return }
    wire.pointee.idleMessages += 1
}
