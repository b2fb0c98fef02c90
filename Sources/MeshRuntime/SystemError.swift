import CMeshSystem

/// A system call that failed: `connect 192.0.2.1: ECONNREFUSED (Connection refused)`.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The errno.
    public let code: Int32
    /// What was tried, in the words of the call and its object: `open /run/netns/shop`.
    public let operation: String

    public init(code: Int32, operation: String) {
        self.code = code
        self.operation = operation
    }

    /// The errno's name, such as `EMFILE`; the bare number when the C library does not know it.
    public var name: String { mesh_error_name(code).map { String(cString: $0) } ?? "errno \(code)" }

    public var description: String {
        let text = mesh_error_text(code).map { String(cString: $0) } ?? "unknown error"
        return "\(operation): \(name) (\(text))"
    }
}

extension SystemError {
    /// The value of a shim's result, or its negated errno thrown.
    @discardableResult
    static func check(_ result: Int32, _ operation: @autoclosure () -> String) throws(SystemError) -> Int32 {
        if result < 0 { throw SystemError(code: -result, operation: operation()) }
        return result
    }
}

extension SystemError {
    /// The address or the pair of addresses is taken by another socket: another port may do.
    public var isAddressInUse: Bool { code == Errno.addressInUse || code == Errno.addressNotAvailable }
}

/// The errnos this module decides by. Numbers are Linux's and the same on x86-64 and arm64.
enum Errno {
    static let noEntry: Int32 = 2
    static let again: Int32 = 11
    static let outOfMemory: Int32 = 12
    static let invalid: Int32 = 22
    static let fileTableFull: Int32 = 23
    static let tooManyFiles: Int32 = 24
    static let brokenPipe: Int32 = 32
    static let familyNotSupported: Int32 = 97
    static let addressInUse: Int32 = 98
    static let addressNotAvailable: Int32 = 99
    static let networkDown: Int32 = 100
    static let networkUnreachable: Int32 = 101
    static let connectionAborted: Int32 = 103
    static let connectionReset: Int32 = 104
    static let noBufferSpace: Int32 = 105
    static let timedOut: Int32 = 110
    static let connectionRefused: Int32 = 111
    static let hostDown: Int32 = 112
    static let hostUnreachable: Int32 = 113
}

extension StreamFailure {
    /// What an errno of a stream socket means to its owner.
    public init(errno: Int32) {
        switch errno {
        // EPIPE is how Linux reports a reset that came after the peer's FIN.
        case Errno.connectionReset, Errno.brokenPipe, Errno.connectionAborted: self = .reset
        case Errno.timedOut: self = .timedOut
        case Errno.connectionRefused: self = .refused
        case Errno.networkUnreachable, Errno.hostUnreachable, Errno.networkDown, Errno.hostDown: self = .unreachable
        default: self = .system(errno)
        }
    }
}
