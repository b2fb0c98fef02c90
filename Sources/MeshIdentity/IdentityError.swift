/// Why an identity, an authority's file or the identity socket is not to be had. The text says what to do.
public struct IdentityError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        /// A file or folder is missing, unreadable, of the wrong kind, or half of a pair.
        case file
        /// Others could read a key or replace a file.
        case permissions
        /// What the files hold is not a usable authority.
        case authority
        /// Another daemon has it.
        case inUse
        /// The signer refused: asking again will not help until something changes.
        case refused
        /// The signer did not answer, or cannot now: asked again later.
        case unavailable
        /// The other end of the identity socket broke its format or its limits.
        case protocolViolation
    }

    public let reason: Reason
    public let description: String

    public init(_ reason: Reason, _ description: String) {
        self.reason = reason
        self.description = description
    }
}
