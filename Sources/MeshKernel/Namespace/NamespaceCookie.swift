internal import Glibc

/// Who tells the cookie of a network namespace, which is what programs call it (bpf_get_netns_cookie).
enum CookieSource: Sendable {
    /// SO_NETNS_COOKIE (5.14).
    case kernel
    /// Our connect hooks, which see it where a process asks by connecting.
    case hooks

    static func probe() -> CookieSource { currentNamespaceCookie() == 0 ? .hooks : .kernel }
}

/// The cookie of a namespace.
/// - Parameter questions: the map by which the connect hooks answer; nil: the kernel tells.
func namespaceCookie(
    of namespace: Descriptor, questions: BPFMap<UInt64, UInt64>?, place: String
) throws(KernelError) -> UInt64 {
    try inNamespace(namespace.raw, place: place) { () throws(KernelError) in
        if let questions { return try ask(questions, place) }
        let cookie = currentNamespaceCookie()
        guard cookie != 0 else {
            throw KernelError(
                .namespaceMissing, "reading the namespace's cookie", at: place, cause: "the kernel does not tell it",
                remedy: "use Linux 5.14 or later, or --capture-level L3")
        }
        return cookie
    }
}

/// Makes a socket known to the hooks and connects it: for a datagram socket that sends nothing, and the hook runs before
/// a route is looked for, so that it works in a namespace with every device down.
private func ask(_ questions: BPFMap<UInt64, UInt64>, _ place: String) throws(KernelError) -> UInt64 {
    let raw = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard raw >= 0 else {
        throw KernelError(
            .system, "asking for the namespace's cookie", at: place, code: errno,
            remedy: "raise the limit of open files (ulimit -n)")
    }
    let asker = Descriptor(adopting: raw)
    guard let key = socketCookie(asker.raw) else {
        throw KernelError(
            .system, "reading a socket's cookie", at: place, code: errno, remedy: "use Linux 4.12 or later")
    }
    try questions.set(0, for: key)
    defer { questions.remove(key) }
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = in_port_t(9).bigEndian
    name.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
    withUnsafePointer(to: name) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
            // Whether there is a route does not matter.
            _ = connect(asker.raw, address, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
    guard let answer = questions.value(for: key), answer != 0 else {
        throw KernelError(
            .system, "asking for the namespace's cookie", at: place, cause: "the connect hook did not answer",
            remedy: "see that the daemon runs in a cgroup below its attach point, and which other programs are there "
                + "('culvert preflight')")
    }
    return answer
}
