import MeshTLS

/// What goes over the identity socket: one request and one response a connection, each a version, a length and a body.
///
///     request   1 | length u32 | CSR, PEM
///     response  1 | status u8 | length u32 | body
///
/// The body of a response `granted` is the chain's length (u32), the chain and the trust bundle, both PEM; otherwise it
/// is text for people. Numbers are big-endian; a body has at most `limit` bytes.
enum IdentityMessage {
    static let limit = 64 * 1024
    static let version: UInt8 = 1
    static let requestHeader = 5
    static let responseHeader = 6

    enum Status: UInt8 {
        case granted = 0
        /// Asking again does not help.
        case refused = 1
        /// Asking again later may help.
        case unavailable = 2
    }

    static func request(_ csr: String) -> [UInt8] {
        let body = Array(csr.utf8)
        return [version] + bytes(body.count) + body
    }

    /// The body's length from a complete header.
    static func requestLength(_ header: ArraySlice<UInt8>) throws(IdentityError) -> Int {
        try length(version: header.first, header.dropFirst())
    }

    static func response(_ status: Status, _ body: [UInt8]) -> [UInt8] {
        guard body.count <= limit else {
            return response(.refused, Array("the answer is larger than \(limit) bytes".utf8))
        }
        return [version, status.rawValue] + bytes(body.count) + body
    }

    static func granted(_ signed: SignedCertificate) -> [UInt8] {
        let chain = signed.chain.map(\.pem).joined().utf8
        let bundle = signed.trustBundle.map(\.pem).joined().utf8
        return response(.granted, bytes(chain.count) + Array(chain) + Array(bundle))
    }

    static func responseHeader(_ header: ArraySlice<UInt8>) throws(IdentityError) -> (Status, Int) {
        let count = try length(version: header.first, header.dropFirst(2))
        guard let status = header.dropFirst().first.flatMap(Status.init(rawValue:)) else {
            throw IdentityError(.protocolViolation, "an answer with an unknown status")
        }
        return (status, count)
    }

    static func signed(_ body: [UInt8]) throws -> SignedCertificate {
        guard body.count >= 4 else { throw IdentityError(.protocolViolation, "an answer cut short") }
        let count = number(body[..<4])
        guard count <= body.count - 4 else { throw IdentityError(.protocolViolation, "an answer cut short") }
        let chain = String(decoding: body[4..<4 + count], as: UTF8.self)
        let bundle = String(decoding: body[(4 + count)...], as: UTF8.self)
        return SignedCertificate(
            chain: try Certificate.bundle(pem: chain), trustBundle: try Certificate.bundle(pem: bundle))
    }

    private static func length(version found: UInt8?, _ digits: ArraySlice<UInt8>) throws(IdentityError) -> Int {
        guard found == version, digits.count == 4 else {
            throw IdentityError(.protocolViolation, "not the identity protocol, version \(version)")
        }
        let count = number(digits)
        guard count <= limit else {
            throw IdentityError(.protocolViolation, "a message of \(count) bytes; at most \(limit) are taken")
        }
        return count
    }

    private static func bytes(_ count: Int) -> [UInt8] {
        let value = UInt32(count)
        return [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> Int {
        digits.reduce(0) { $0 << 8 | Int($1) }
    }
}
