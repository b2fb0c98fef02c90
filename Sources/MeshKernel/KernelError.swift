internal import CMeshSystem
public import MeshModel

/// A failure of capture: what was attempted, where, why the kernel refused, and what the operator can do.
public struct KernelError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Kind: Hashable, Sendable {
        /// Capabilities the process lacks, by name (`CAP_BPF`).
        case missingCapabilities([String])
        case cgroupUnavailable
        case bpffsUnavailable
        /// The verifier or the kernel refused a program or map; `cause` holds the tail of the verifier's log.
        case programRefused
        case attachRefused
        case pinRefused
        /// The descriptor is not a network namespace, or it is gone.
        case namespaceMissing
        /// Rules, routes or settings inside a namespace could not be set.
        case namespaceRefused
        /// The address is not configured in the namespace (or, IPv6, still tentative): worth trying again later.
        case addressMissing(IPAddress)
        /// Another daemon runs under this node name; its process id where known.
        case alreadyRunning(pid: Int32?)
        /// Another node's daemon captures this namespace.
        case alreadyCaptured
        /// The nft program is missing or does not start.
        case nftUnavailable
        /// The level asked for cannot be had here, or an earlier daemon captures at another one.
        case levelUnavailable(CaptureLevel)
        case limitReached
        case badRequest
        case system
    }

    public let kind: Kind
    /// What was attempted.
    public let what: String
    /// The path, namespace or workload it concerned.
    public let place: String
    /// Why it failed, as the kernel says it.
    public let cause: String
    /// What to do about it.
    public let remedy: String

    init(_ kind: Kind, _ what: String, at place: String, cause: String, remedy: String) {
        self.kind = kind
        self.what = what
        self.place = place
        self.cause = cause
        self.remedy = remedy
    }

    /// The same error with the system's words for a (positive or negated) errno as its cause.
    init(_ kind: Kind, _ what: String, at place: String, code: Int32, remedy: String) {
        self.init(kind, what, at: place, cause: errorText(code), remedy: remedy)
    }

    public var description: String {
        "\(what) (\(place)): \(cause); \(remedy)"
    }
}

/// `Operation not permitted (EPERM)` for EPERM, given as such or negated.
func errorText(_ code: Int32) -> String {
    let number = abs(code)
    let text = mesh_error_text(number).map { String(cString: $0) } ?? "error \(number)"
    guard let name = mesh_error_name(number) else { return text }
    return "\(text) (\(String(cString: name)))"
}
