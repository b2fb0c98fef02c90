import COpenSSL
import Glibc

/// Everything sessions of one SVID share: its certificates and key, the trust bundle, the fixed settings.
/// Built once per SVID and used by every core; a rotated SVID gets a new context and sessions in flight keep theirs.
///
/// TLS 1.3 only; X25519 (with ML-KEM where the library has it) and P-256; AES-GCM and ChaCha20-Poly1305; ALPN `h2`;
/// both sides show a certificate; no tickets, resumption, early data or server name. Nothing here can be weakened.
// Sendable although it holds pointers: both SSL_CTX are complete when init returns and nobody changes them afterwards.
// Making a session only raises atomic reference counts; verifying reads the certificate store under the store's own
// lock; callbacks touch only the session that they are called for. With session caching off there is no shared cache.
public final class TLSContext: @unchecked Sendable {
    public let svid: SVID
    let client: OpaquePointer
    let server: OpaquePointer
    /// Unix seconds that certificates are judged by.
    let clock: @Sendable () -> Int64

    /// The machine's wall clock in unix seconds.
    public static let systemClock: @Sendable () -> Int64 = { Int64(time(nil)) }

    /// `clock` is read once a handshake.
    public init(
        svid: SVID, clock: @escaping @Sendable () -> Int64 = TLSContext.systemClock
    ) throws(CertificateError) {
        _ = OpenSSL.isReady
        let client = try TLSContext.make(TLS_client_method(), svid)
        let server: OpaquePointer
        do throws(CertificateError) {
            server = try TLSContext.make(TLS_server_method(), svid)
        } catch {
            SSL_CTX_free(client)
            throw error
        }
        // ALPN wants each name after its length (RFC 7301 §3.1). Zero is success, unlike everywhere else.
        let offered: [UInt8] = [2, UInt8(ascii: "h"), UInt8(ascii: "2")]
        precondition(SSL_CTX_set_alpn_protos(client, offered, UInt32(offered.count)) == 0, "no memory")
        SSL_CTX_set_alpn_select_cb(server, selectApplicationProtocol, nil)
        SSL_CTX_set_client_hello_cb(server, inspectClientHello, nil)
        self.client = client
        self.server = server
        self.svid = svid
        self.clock = clock
    }

    deinit {
        SSL_CTX_free(client)
        SSL_CTX_free(server)
    }

    private static func make(_ method: OpaquePointer?, _ svid: SVID) throws(CertificateError) -> OpaquePointer {
        guard let context = SSL_CTX_new(method) else { throw .library("cannot make a TLS context") }
        var isComplete = false
        defer { if !isComplete { SSL_CTX_free(context) } }
        // AES-128 first: the cheapest on processors with AES instructions.
        let suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
        guard
            culvert_ssl_configure(context) == 1, SSL_CTX_set_ciphersuites(context, suites) == 1,
            SSL_CTX_use_certificate(context, svid.certificate.handle) == 1,
            SSL_CTX_use_PrivateKey(context, svid.key.handle) == 1,
            svid.intermediates.allSatisfy({ culvert_ssl_add_chain_certificate(context, $0.handle) == 1 }),
            let trusted = SSL_CTX_get_cert_store(context),
            svid.trustBundle.allSatisfy({ X509_STORE_add_cert(trusted, $0.handle) == 1 })
        else { throw .library("cannot make a TLS context") }
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        SSL_CTX_set_cert_verify_callback(context, verifyPeer, nil)
        SSL_CTX_set_msg_callback(context, countMessage)
        isComplete = true
        return context
    }
}
