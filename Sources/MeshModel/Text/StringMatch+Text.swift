extension StringMatch {
    /// Reads a value of an Istio policy: `*` anything not empty, `*.suffix`, `prefix*`, or the exact string. A star
    /// elsewhere stands for itself; when both ends have one the first decides, as in Istio.
    public init(pattern: String) {
        if pattern == "*" {
            self = .present
        } else if pattern.utf8.first == UInt8(ascii: "*") {
            self = .suffix(String(pattern.dropFirst()))
        } else if pattern.utf8.last == UInt8(ascii: "*") {
            self = .prefix(String(pattern.dropLast()))
        } else {
            self = .exact(pattern)
        }
    }

    /// The pattern as a policy writes it.
    public var pattern: String {
        switch self {
        case .exact(let text): text
        case .prefix(let text): "\(text)*"
        case .suffix(let text): "*\(text)"
        case .present: "*"
        }
    }

    /// Compares bytes, never Unicode equivalence: two spellings of one name are two identities.
    public func matches(_ value: String) -> Bool {
        switch self {
        case .exact(let text): value.utf8.elementsEqual(text.utf8)
        case .prefix(let text): value.utf8.starts(with: text.utf8)
        case .suffix(let text): value.utf8.reversed().starts(with: text.utf8.reversed())
        case .present: !value.isEmpty
        }
    }
}
