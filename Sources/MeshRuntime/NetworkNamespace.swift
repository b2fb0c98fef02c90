import CMeshSystem

/// A network namespace, kept by an open file: it lives on when its path and its processes are gone.
public final class NetworkNamespace: Sendable {
    /// Open as long as this object lives.
    public let descriptor: Int32
    /// The inode number, the same for every path to the namespace as long as it lives.
    public let inode: UInt64

    /// - Parameter path: a mounted namespace (`/run/netns/shop`) or a process's (`/proc/4711/ns/net`).
    public convenience init(path: String) throws(SystemError) {
        try self.init(adopting: SystemError.check(mesh_open(path), "open \(path)"), name: path)
    }

    /// The namespace of the calling thread.
    public static func current() throws(SystemError) -> NetworkNamespace {
        let descriptor = try SystemError.check(mesh_open_current_network_namespace(), "open /proc/thread-self/ns/net")
        return try NetworkNamespace(adopting: descriptor, name: "/proc/thread-self/ns/net")
    }

    private init(adopting descriptor: Int32, name: String) throws(SystemError) {
        self.descriptor = descriptor
        var inode: UInt64 = 0
        let isNamespace = mesh_is_network_namespace(descriptor)
        let result = isNamespace == 1 ? mesh_inode(descriptor, &inode) : -Errno.invalid
        self.inode = inode
        // From here on deinit closes the descriptor.
        try SystemError.check(result, "\(name) is not a network namespace")
    }

    deinit { mesh_close(descriptor) }

    /// Runs `body` with the calling thread in this namespace and brings the thread back. Sockets made there stay there.
    /// `body` must not leave the thread. A thread that cannot come back would serve the wrong pod: that is fatal.
    /// - Parameter home: where the thread comes from and returns to; looked up when absent, which costs three more
    ///   system calls.
    public func run<R>(
        returningTo home: NetworkNamespace? = nil, _ body: () throws(SystemError) -> R
    ) throws(SystemError) -> R {
        let home = if let home { home } else { try NetworkNamespace.current() }
        try SystemError.check(mesh_enter_network_namespace(descriptor), "setns")
        defer {
            let result = mesh_enter_network_namespace(home.descriptor)
            if result < 0 { fatalError("\(SystemError(code: -result, operation: "setns home"))") }
        }
        return try body()
    }

    /// What eBPF programs call it (bpf_get_netns_cookie): unique for the time the machine is up. Since Linux 5.14.
    public var cookie: UInt64 {
        get throws(SystemError) {
            try run { () throws(SystemError) -> UInt64 in
                var cookie: UInt64 = 0
                try SystemError.check(mesh_network_namespace_cookie(&cookie), "getsockopt SO_NETNS_COOKIE")
                return cookie
            }
        }
    }
}
