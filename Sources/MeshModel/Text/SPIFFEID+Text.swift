extension SPIFFEID: LosslessStringConvertible {
    /// Longest URI accepted, in bytes (SPIFFE-ID §2.3).
    public static let maximumLength = 2048

    /// Reads `spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT`, exactly: no query, fragment, port, user, escapes, empty
    /// or dot segments (SPIFFE-ID §2), and no other shape of path.
    public init?(_ uri: String) {
        let scheme = "spiffe://"
        guard uri.utf8.count <= SPIFFEID.maximumLength, uri.utf8.starts(with: scheme.utf8) else { return nil }
        self.init(principal: String(uri.dropFirst(scheme.count)))
    }

    /// Reads the form that policies use, `TRUSTDOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    public init?(principal: String) {
        let pieces = principal.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard
            pieces.count == 5, pieces[1].elementsEqual("ns".utf8), pieces[3].elementsEqual("sa".utf8),
            !pieces[0].isEmpty, pieces[0].allSatisfy(SPIFFEID.isTrustDomainByte),
            SPIFFEID.isSegment(pieces[2]), SPIFFEID.isSegment(pieces[4])
        else { return nil }
        self.init(
            trustDomain: String(Substring(pieces[0])), namespace: String(Substring(pieces[2])),
            serviceAccount: String(Substring(pieces[4])))
    }

    private static func isSegment(_ bytes: Substring.UTF8View) -> Bool {
        guard !bytes.isEmpty, !bytes.elementsEqual(".".utf8), !bytes.elementsEqual("..".utf8) else { return false }
        return bytes.allSatisfy { byte in
            isTrustDomainByte(byte) || (byte >= UInt8(ascii: "A") && byte <= UInt8(ascii: "Z"))
        }
    }

    private static func isTrustDomainByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."),
            UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
}

extension ObjectName: LosslessStringConvertible {
    /// Reads `NAMESPACE/NAME`, both parts present.
    public init?(_ text: String) {
        let pieces = text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard pieces.count == 2, !pieces[0].isEmpty, !pieces[1].isEmpty else { return nil }
        self.init(namespace: String(Substring(pieces[0])), name: String(Substring(pieces[1])))
    }
}
