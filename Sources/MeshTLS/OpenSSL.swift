import COpenSSL

/// Small things every file here needs of the library: its one-time start, its error queue, memory BIOs.
enum OpenSSL {
    /// Touch before the first call. The library is started without the machine's `openssl.cnf`: what a session accepts
    /// is decided here and must not change with a file that other programs share.
    static let isReady: Bool = {
        _ = culvert_ssl_install_memory()
        let started = OPENSSL_init_ssl(UInt64(OPENSSL_INIT_NO_LOAD_CONFIG), nil) == 1
        precondition(started, "libssl cannot start")
        return started
    }()

    /// Empties this thread's error queue and gives the first entry's text: the one nearest to the cause.
    @inline(never)
    static func takeError() -> String {
        let code = ERR_get_error()
        ERR_clear_error()
        guard code != 0 else { return "no detail from OpenSSL" }
        guard let reason = ERR_reason_error_string(code) else { return "OpenSSL error \(code)" }
        return String(cString: reason)
    }

    /// Runs `body` over a read-only memory BIO of `text`. nil when there is no memory.
    static func withReader<R, E: Error>(_ text: String, _ body: (OpaquePointer) throws(E) -> R) throws(E) -> R? {
        let bytes = Array(text.utf8)
        guard bytes.count <= Int(Int32.max) else { return nil }
        // The BIO only borrows the bytes, so it must not outlive the array: it is freed before returning.
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
        copy.copyBytes(from: bytes)
        defer {
            // The text may be a private key.
            OPENSSL_cleanse(copy.baseAddress, copy.count)
            copy.deallocate()
        }
        guard let bio = BIO_new_mem_buf(copy.baseAddress, Int32(bytes.count)) else { return nil }
        defer { BIO_free(bio) }
        return try body(bio)
    }

    /// What `body` writes into a memory BIO, as text. nil when it reports failure.
    static func writing(_ body: (OpaquePointer) -> Int32) -> String? {
        guard let bio = BIO_new(BIO_s_mem()) else { return nil }
        defer { BIO_free(bio) }
        guard body(bio) == 1 else { return nil }
        var start: UnsafeMutablePointer<CChar>?
        let count = culvert_ssl_memory(bio, &start)
        guard let start, count > 0 else { return "" }
        let bytes = UnsafeRawBufferPointer(start: start, count: count)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A pass phrase callback that never asks: without it OpenSSL prompts on the terminal for an encrypted key.
    static let refusePassphrase:
        @convention(c) (UnsafeMutablePointer<CChar>?, Int32, Int32, UnsafeMutableRawPointer?) ->
            Int32 = { _, _, _, _ in -1 }
}
