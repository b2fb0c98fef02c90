/// Walks the records of one direction of a TLS connection (RFC 8446 §5.1) without any key.
///
/// TLS 1.3 is proved by what must be visible: a ServerHello that picks version 0x0304 in `supported_versions`
/// (§4.2.1), and after it no handshake record in clear, only application data (23), the compatibility
/// change_cipher_spec (20) and alerts (21). TLS 1.2 would show its Certificate in clear, other protocols no records.
struct TLSRecordWalk {
    private(set) var records = 0
    private(set) var applicationRecords = 0
    private(set) var sawClientHello = false
    /// Version and cipher suite of the last ServerHello.
    private(set) var chosen: (version: UInt16, cipher: UInt16)?
    /// What was not TLS 1.3, and at which byte of the stream.
    private(set) var violation: String?

    private var offset = 0
    private var header: [UInt8] = []
    private var remaining = 0
    private var type: UInt8 = 0
    /// Handshake bytes in clear, until the ServerHello is complete.
    private var handshake: [UInt8] = []
    private var handshakeIsOver = false

    /// A hello is far shorter; more in clear is no TLS 1.3.
    private static let handshakeLimit = 32 * 1024
    /// RFC 8446 §5.2: 2^14 and 256 of expansion.
    private static let recordLimit = 16384 + 256

    mutating func feed(_ bytes: UnsafeRawBufferPointer) {
        var position = 0
        while position < bytes.count, violation == nil {
            if remaining > 0 {
                let count = min(remaining, bytes.count - position)
                if type == 22 { collect(UnsafeRawBufferPointer(rebasing: bytes[position..<position + count])) }
                remaining -= count
                position += count
                continue
            }
            header.append(bytes[position])
            position += 1
            if header.count == 5 {
                begin(at: offset + position - 5)
                header.removeAll(keepingCapacity: true)
            }
        }
        offset += bytes.count
    }

    private mutating func begin(at start: Int) {
        type = header[0]
        remaining = Int(header[3]) << 8 | Int(header[4])
        let hex = header.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined(separator: " ")
        guard (20...24).contains(type), header[1] == 3, (1...3).contains(header[2]), remaining <= Self.recordLimit
        else {
            violation = "no TLS record at byte \(start): \(hex)"
            return
        }
        if type == 22, handshakeIsOver {
            violation = "a handshake record in clear after the ServerHello, at byte \(start)"
            return
        }
        records += 1
        if type == 23 { applicationRecords += 1 }
    }

    private mutating func collect(_ bytes: UnsafeRawBufferPointer) {
        handshake.append(contentsOf: bytes)
        while handshake.count >= 4 {
            let length = Int(handshake[1]) << 16 | Int(handshake[2]) << 8 | Int(handshake[3])
            guard length <= Self.handshakeLimit else {
                violation = "a handshake message of \(length) bytes in clear"
                return
            }
            guard handshake.count >= 4 + length else { return }
            message(handshake[0], Array(handshake[4..<4 + length]))
            handshake.removeFirst(4 + length)
        }
    }

    private mutating func message(_ kind: UInt8, _ body: [UInt8]) {
        switch kind {
        case 1: sawClientHello = true
        case 2:
            guard let hello = Self.serverHello(body) else {
                violation = "a ServerHello that cannot be read"
                return
            }
            chosen = (hello.version, hello.cipher)
            handshakeIsOver = !hello.isRetry
        default: violation = "a handshake message of type \(kind) in clear"
        }
    }

    /// RFC 8446 §4.1.3; a HelloRetryRequest is told by its fixed random.
    private static func serverHello(_ body: [UInt8]) -> (version: UInt16, cipher: UInt16, isRetry: Bool)? {
        body.withUnsafeBytes { bytes in
            guard bytes.count >= 38 else { return nil }
            var version = bytes.u16(0)
            let isRetry = bytes[2] == 0xcf && bytes[3] == 0x21 && bytes[4] == 0xad && bytes[5] == 0x74
            var offset = 35 + Int(bytes[34])
            guard bytes.count >= offset + 3 else { return nil }
            let cipher = bytes.u16(offset)
            offset += 3
            guard bytes.count >= offset + 2 else { return (version, cipher, isRetry) }
            offset += 2
            while bytes.count >= offset + 4 {
                let length = Int(bytes.u16(offset + 2))
                if bytes.u16(offset) == 43, length == 2, bytes.count >= offset + 6 { version = bytes.u16(offset + 4) }
                offset += 4 + length
            }
            return (version, cipher, isRetry)
        }
    }
}
