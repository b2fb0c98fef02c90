internal import CMeshSystem
internal import Glibc

/// Runs `body` on the calling thread inside a network namespace and comes back. Nothing may suspend in between: the
/// namespace belongs to the thread. Not coming back would leave a foreign thread in a pod, so that is fatal.
func inNamespace<Value>(
    _ descriptor: Int32, place: String, _ body: () throws(KernelError) -> Value
) throws(KernelError) -> Value {
    let here = mesh_open_current_network_namespace()
    guard here >= 0 else {
        throw KernelError(
            .system, "opening the own network namespace", at: "/proc/thread-self/ns/net", code: here,
            remedy: "mount /proc")
    }
    let home = Descriptor(adopting: here)
    let code = mesh_enter_network_namespace(descriptor)
    guard code == 0 else {
        throw KernelError(
            .namespaceMissing, "entering the network namespace", at: place, code: code,
            remedy: code == -EPERM
                ? "run with CAP_SYS_ADMIN" : "check that the workload's netns is the path of a network namespace")
    }
    defer {
        let back = mesh_enter_network_namespace(home.raw)
        if back != 0 { fatalError("the thread is stuck in a workload's network namespace: \(errorText(back))") }
    }
    return try body()
}

/// Finds a namespace by its inode among bind mounts and processes; nil when nothing names it any more.
func findNamespace(inode: UInt32) -> Descriptor? {
    let link = "net:[\(inode)]"
    var candidates: [String] = []
    if let text = Files.read("/proc/self/mountinfo").value {
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count > 5, fields[3] == link { candidates.append(String(fields[4])) }
        }
    }
    for process in Files.names(in: "/proc") where process.allSatisfy(\.isNumber) {
        candidates.append("/proc/\(process)/ns/net")
    }
    for path in candidates where Files.inode(path) == UInt64(inode) {
        let raw = mesh_open(path)
        if raw < 0 { continue }
        let found = Descriptor(adopting: raw)
        var inode2: UInt64 = 0
        if mesh_inode(raw, &inode2) == 0, inode2 == UInt64(inode) { return found }
    }
    return nil
}

/// The cookie of the calling thread's network namespace; 0 where the kernel cannot say it.
func currentNamespaceCookie() -> UInt64 {
    var cookie: UInt64 = 0
    return mesh_network_namespace_cookie(&cookie) == 0 ? cookie : 0
}

/// The kernel's name for a socket, the same for every descriptor of it; nil when it is none.
func socketCookie(_ socket: Int32) -> UInt64? {
    var cookie: UInt64 = 0
    return mesh_socket_identity(socket, &cookie) == 0 ? cookie : nil
}
