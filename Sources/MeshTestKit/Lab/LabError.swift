/// Why a lab could not be made, or why something in it did not happen.
public struct LabError: Error, Sendable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        /// Namespaces, cgroups and mounts need root.
        case notRoot
        /// A program is not installed.
        case missingProgram
        /// The machine refused a namespace, a cgroup, a mount or a file.
        case setUp
        /// A command ended with a failure.
        case command
        /// Something awaited did not come in time.
        case timedOut
        /// The lab was torn down while somebody still used it.
        case tornDown
    }

    public let kind: Kind
    /// One sentence for people, with the remedy where there is one.
    public let description: String

    public init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }
}
