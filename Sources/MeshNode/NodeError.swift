/// Why the node proxy cannot start or go on: what was wrong, where, and what to do.
public struct NodeError: Error, CustomStringConvertible, Sendable {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}
