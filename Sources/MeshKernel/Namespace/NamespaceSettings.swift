internal import Glibc

/// The three settings capture needs in a workload's namespace. All are 0 or 1; `absent` where the kernel has no such
/// file (IPv6 off).
///
/// `tcp_fwmark_accept` lets the application's accepted socket inherit the mark of the proxy's leg, so that replies to the
/// client's (foreign) address return over lo; it covers IPv6 too. `fwmark_reflect` does the same for packets without a
/// socket: resets and TIME_WAIT answers.
struct NamespaceSettings: Hashable, Sendable {
    static let absent: UInt8 = 0xff
    static let acceptPath = "/proc/sys/net/ipv4/tcp_fwmark_accept"
    static let reflect4Path = "/proc/sys/net/ipv4/fwmark_reflect"
    static let reflect6Path = "/proc/sys/net/ipv6/fwmark_reflect"

    var accept: UInt8
    var reflect4: UInt8
    var reflect6: UInt8

    static let captured = NamespaceSettings(accept: 1, reflect4: 1, reflect6: 1)

    /// Reads the settings of the calling thread's namespace.
    static func read() throws(KernelError) -> NamespaceSettings {
        NamespaceSettings(
            accept: try value(acceptPath, optional: false), reflect4: try value(reflect4Path, optional: false),
            reflect6: try value(reflect6Path, optional: true))
    }

    /// Writes the settings of the calling thread's namespace, leaving alone what is absent.
    func apply() throws(KernelError) {
        try Self.set(Self.acceptPath, accept)
        try Self.set(Self.reflect4Path, reflect4)
        if Files.inode(Self.reflect6Path) != nil { try Self.set(Self.reflect6Path, reflect6) }
    }

    private static func value(_ path: String, optional: Bool) throws(KernelError) -> UInt8 {
        switch Files.read(path) {
        case .success(let text): return UInt8(text.prefix { $0.isNumber }) ?? 0
        case .failure(let error):
            if optional && error.code == -ENOENT { return absent }
            throw KernelError(
                .namespaceRefused, "reading a setting", at: path, code: error.code,
                remedy: "mount /proc; the setting exists since 3.15")
        }
    }

    private static func set(_ path: String, _ value: UInt8) throws(KernelError) {
        guard value != absent else { return }
        let code = Files.write("\(value)", to: path)
        if code < 0 {
            throw KernelError(
                .namespaceRefused, "changing a setting", at: path, code: code,
                remedy: code == -EROFS ? "run with a writable /proc/sys (privileged container)" : "run as root")
        }
    }
}
