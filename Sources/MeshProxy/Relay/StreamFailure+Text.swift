internal import MeshRuntime

extension StreamFailure {
    /// The words of the access log.
    var text: String {
        switch self {
        case .reset: "connection reset"
        case .timedOut: "timed out"
        case .refused: "connection refused"
        case .unreachable: "host unreachable"
        case .protocolViolation: "protocol violation"
        case .system(let code): SystemError(code: code, operation: "stream").description
        }
    }
}
