/// The shapes of names, as Kubernetes and the RFCs have them.
enum Names {
    static let label = "a DNS label (RFC 1123): at most 63 of a-z, 0-9 and -, with a letter or digit at both ends"
    static let subdomain =
        "a DNS name (RFC 1123): at most 253 of a-z, 0-9, - and ., with a letter or digit at both ends of each part"
    static let hostName = "a lower-case DNS name, with *. allowed in front"

    static func isLabel(_ text: some StringProtocol) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last, bytes.count <= 63 else { return false }
        return isLowerAlphanumeric(first) && isLowerAlphanumeric(last)
            && bytes.allSatisfy { isLowerAlphanumeric($0) || $0 == UInt8(ascii: "-") }
    }

    static func isSubdomain(_ text: some StringProtocol) -> Bool {
        guard text.utf8.count <= 253 else { return false }
        return Array(text.utf8).split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).allSatisfy {
            part in
            guard let first = part.first, let last = part.last else { return false }
            return isLowerAlphanumeric(first) && isLowerAlphanumeric(last)
                && part.allSatisfy { isLowerAlphanumeric($0) || $0 == UInt8(ascii: "-") }
        }
    }

    /// A host name of a route: labels of at most 63, optionally behind `*.`; never an address.
    static func isHostName(_ text: String) -> Bool {
        let name = text.hasPrefix("*.") ? text.dropFirst(2) : text[...]
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        return name.utf8.count <= 253 && parts.allSatisfy { isLabel($0) }
            && !(parts.last?.utf8.allSatisfy { $0 >= 0x30 && $0 <= 0x39 } ?? true)
    }

    /// A key of a label: `name` or `prefix/name`.
    static func isLabelKey(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        switch parts.count {
        case 1: return isLabelWord(parts[0]) && !parts[0].isEmpty
        case 2: return isSubdomain(parts[0]) && isLabelWord(parts[1]) && !parts[1].isEmpty
        default: return false
        }
    }

    /// A value of a label; may be empty.
    static func isLabelWord(_ text: some StringProtocol) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, let last = bytes.last else { return true }
        return bytes.count <= 63 && isAlphanumeric(first) && isAlphanumeric(last)
            && bytes.allSatisfy {
                isAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".")
            }
    }

    /// A trust domain (SPIFFE-ID §2.1): lower-case letters, digits, dot, hyphen and underscore.
    static func isTrustDomain(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 255
            && text.utf8.allSatisfy {
                isLowerAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: ".")
            }
    }

    /// A name for a port of a workload (RFC 6335 §5.1 as Kubernetes reads it).
    static func isPortName(_ text: String) -> Bool {
        isLabel(text) && text.utf8.count <= 15 && text.utf8.contains { $0 >= 0x61 && $0 <= 0x7a }
            && !text.contains("--")
    }

    /// A header field name (RFC 9110 §5.1: a token).
    static func isHeaderName(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 256
            && text.utf8.allSatisfy { isAlphanumeric($0) || "!#$%&'*+-.^_`|~".utf8.contains($0) }
    }

    /// A header field value (RFC 9110 §5.5): visible characters, with spaces and tabs inside.
    static func isHeaderValue(_ text: String) -> Bool {
        let bytes = text.utf8
        guard bytes.count <= 4096, let first = bytes.first, let last = bytes.last else { return text.isEmpty }
        return first > 0x20 && last > 0x20 && bytes.allSatisfy { $0 == 0x09 || ($0 >= 0x20 && $0 != 0x7f) }
    }

    private static func isLowerAlphanumeric(_ byte: UInt8) -> Bool {
        (byte >= 0x61 && byte <= 0x7a) || (byte >= 0x30 && byte <= 0x39)
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        isLowerAlphanumeric(byte) || (byte >= 0x41 && byte <= 0x5a)
    }
}

/// Times and sizes as Kubernetes writes them.
enum Quantities {
    /// `10s`, `1m30s`, `500ms` (Gateway API's duration, GEP-2257), in nanoseconds.
    static func duration(_ text: String) -> UInt64? {
        var total: UInt64 = 0
        var rest = text.utf8[...]
        var parts = 0
        while !rest.isEmpty {
            let digits = rest.prefix { $0 >= 0x30 && $0 <= 0x39 }
            rest = rest.dropFirst(digits.count)
            let unit = rest.prefix { $0 >= 0x61 && $0 <= 0x7a }
            rest = rest.dropFirst(unit.count)
            parts += 1
            guard (1...5).contains(digits.count), parts <= 4, let amount = UInt64(String(Substring(digits))) else {
                return nil
            }
            switch String(Substring(unit)) {
            case "h": total += amount * 3_600_000_000_000
            case "m": total += amount * 60_000_000_000
            case "s": total += amount * 1_000_000_000
            case "ms": total += amount * 1_000_000
            default: return nil
            }
        }
        return parts > 0 ? total : nil
    }

    /// `65536`, `64Ki`, `1Mi`, `1Gi`.
    static func bytes(_ text: String) -> Int? {
        let factors = [("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("", 1)]
        for (suffix, factor) in factors where text.hasSuffix(suffix) {
            let digits = text.dropLast(suffix.count)
            guard (1...12).contains(digits.utf8.count), digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
                let amount = Int(digits)
            else { return nil }
            let (product, overflow) = amount.multipliedReportingOverflow(by: factor)
            return overflow ? nil : product
        }
        return nil
    }
}
