public import MeshModel

/// Why a text is not an authority.
public enum AuthorityError: Error, Hashable, Sendable, CustomStringConvertible {
    case empty
    case noPort
    /// Not a decimal number without leading zeros in 1…65535.
    case badPort
    /// Brackets or a dotted number that hold no IP address.
    case badAddress
    /// Not a host name: labels of letters, digits and hyphens (RFC 1123 §2.1).
    case badHost

    public var description: String {
        switch self {
        case .empty: "empty authority"
        case .noPort: "authority without a port"
        case .badPort: "authority with a port outside 1…65535"
        case .badAddress: "authority with a malformed IP address"
        case .badHost: "authority with a malformed host name"
        }
    }
}

/// The target of a CONNECT (RFC 9113 §8.5): `192.0.2.1:80`, `[2001:db8::1]:80` or `name.namespace:80`.
/// Strict: a port always, no user information, no zone identifiers.
public enum Authority: Hashable, Sendable, CustomStringConvertible {
    case address(SocketAddress)
    /// The name is in lower case.
    case host(String, port: UInt16)

    public init(_ text: String) throws(AuthorityError) {
        var copy = text
        let result = copy.withUTF8 { Authority.parse($0) }
        self = try result.get()
    }

    public init(utf8 bytes: UnsafeBufferPointer<UInt8>) throws(AuthorityError) {
        self = try Authority.parse(bytes).get()
    }

    public var description: String {
        switch self {
        case .address(let address): address.description
        case .host(let name, let port): "\(name):\(port)"
        }
    }

    public var port: UInt16 {
        switch self {
        case .address(let address): address.port
        case .host(_, let port): port
        }
    }

    private static func parse(_ text: UnsafeBufferPointer<UInt8>) -> Result<Authority, AuthorityError> {
        guard let first = text.first else { return .failure(.empty) }
        guard let colon = text.lastIndex(of: UInt8(ascii: ":")) else { return .failure(.noPort) }
        let host = text[..<colon]
        // `[::1]` ends inside the address: there is no port.
        if first == UInt8(ascii: "["), text.last == UInt8(ascii: "]") { return .failure(.noPort) }
        guard let port = port(text[(colon + 1)...]) else { return .failure(.badPort) }
        if first == UInt8(ascii: "[") || looksNumeric(host) {
            guard let address = SocketAddress(utf8: text) else { return .failure(.badAddress) }
            return .success(.address(address))
        }
        // A bare IPv6 address has colons before the last one.
        if host.contains(UInt8(ascii: ":")) { return .failure(.badAddress) }
        guard isHostName(host) else { return .failure(.badHost) }
        return .success(.host(String(decoding: host.lazy.map(lowerCased), as: UTF8.self), port: port))
    }

    private static func port(_ digits: Slice<UnsafeBufferPointer<UInt8>>) -> UInt16? {
        guard (1...5).contains(digits.count), digits.first != UInt8(ascii: "0") else { return nil }
        var value = 0
        for digit in digits {
            guard isDigit(digit) else { return nil }
            value = value * 10 + Int(digit - UInt8(ascii: "0"))
        }
        return UInt16(exactly: value)
    }

    /// A name whose last label is a number is read as an IPv4 address or not at all (RFC 1123 §2.1: no top-level name
    /// is a number), so that `10.0.0.300` never becomes a name.
    private static func looksNumeric(_ host: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        guard let last = host.last, isDigit(last) else { return false }
        let start = host.lastIndex(of: UInt8(ascii: ".")).map { $0 + 1 } ?? host.startIndex
        return host[start...].allSatisfy(isDigit)
    }

    private static func isHostName(_ host: Slice<UnsafeBufferPointer<UInt8>>) -> Bool {
        guard (1...253).contains(host.count) else { return false }
        for label in host.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
            guard
                (1...63).contains(label.count), label.first != UInt8(ascii: "-"), label.last != UInt8(ascii: "-"),
                label.allSatisfy({ isDigit($0) || isLetter($0) || $0 == UInt8(ascii: "-") })
            else { return false }
        }
        return true
    }

    private static func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    private static func isLetter(_ byte: UInt8) -> Bool {
        let lower = byte | 0x20
        return lower >= UInt8(ascii: "a") && lower <= UInt8(ascii: "z")
    }

    private static func lowerCased(_ byte: UInt8) -> UInt8 { isLetter(byte) ? byte | 0x20 : byte }
}
