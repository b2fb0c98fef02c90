public import MeshModel

/// The `forwarded` header (RFC 7239) of a CONNECT: whose connection it carries, and the service it was meant for.
/// A hint from the peer; never proof of an address.
public struct Forwarded: Hashable, Sendable {
    public var client: SocketAddress?
    /// Domain name of the service, when the application addressed one.
    public var host: String?

    public init(client: SocketAddress?, host: String? = nil) {
        self.client = client
        self.host = host
    }

    /// The header's value; empty when there is nothing to say. Addresses are quoted (RFC 7239 §6: they hold colons).
    public var text: String {
        var text = client.map { "for=\"\($0)\"" } ?? ""
        if let host, !host.isEmpty, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) {
            if !text.isEmpty { text += ";" }
            text += "host="
            text += host.utf8.allSatisfy(Self.isTokenByte) ? host : Self.quoted(host)
        }
        return text
    }

    /// Reads the first element that says something. nil when the value breaks the grammar of RFC 7239 §4.
    public init?(_ value: String) {
        var reader = Reader(rest: value.utf8[...])
        var client: String?
        var host: String?
        repeat {
            repeat {
                reader.skipSpace()
                guard let (name, value) = reader.pair() else { return nil }
                if name == "for", client == nil { client = value }
                if name == "host", host == nil { host = value }
                reader.skipSpace()
            } while reader.take(UInt8(ascii: ";"))
        } while reader.take(UInt8(ascii: ","))
        guard reader.rest.isEmpty else { return nil }
        // An obfuscated or unknown node (RFC 7239 §6.2, §6.3) is no address.
        self.client = client.flatMap(SocketAddress.init)
        self.host = host
    }

    private static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            if scalar == "\"" || scalar == "\\" { quoted += "\\" }
            quoted.unicodeScalars.append(scalar)
        }
        return quoted + "\""
    }

    /// tchar of RFC 9110 §5.6.2.
    private static func isTokenByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }

    private struct Reader {
        var rest: Substring.UTF8View

        mutating func take(_ byte: UInt8) -> Bool {
            guard rest.first == byte else { return false }
            rest.removeFirst()
            return true
        }

        mutating func skipSpace() {
            rest = rest.drop { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
        }

        /// `token "=" ( token / quoted-string )`; the name in lower case, for it is compared without case.
        mutating func pair() -> (name: String, value: String)? {
            guard let name = token(), take(UInt8(ascii: "=")) else { return nil }
            guard let value = take(UInt8(ascii: "\"")) ? quotedRest() : token() else { return nil }
            return (name.lowercased(), value)
        }

        private mutating func token() -> String? {
            let token = rest.prefix(while: Forwarded.isTokenByte)
            rest = rest[token.endIndex...]
            return token.isEmpty ? nil : String(token)
        }

        private mutating func quotedRest() -> String? {
            var bytes: [UInt8] = []
            while let byte = rest.popFirst() {
                switch byte {
                case UInt8(ascii: "\""): return String(decoding: bytes, as: UTF8.self)
                case UInt8(ascii: "\\"):
                    guard let escaped = rest.popFirst(), escaped >= 0x20, escaped < 0x7f else { return nil }
                    bytes.append(escaped)
                case 0x20..<0x7f, UInt8(ascii: "\t"): bytes.append(byte)
                default: return nil
                }
            }
            return nil
        }
    }
}
