import Glibc

/// Which network namespace the process at the other end of a unix socket lives in. The kernel vouches for the process
/// (it recorded it at connect), so a workload can claim nothing.
enum PeerNamespace {
    /// The inode of the peer's network namespace.
    static func inode(of socket: Int32) throws(IdentityError) -> UInt64 {
        // struct ucred: pid, uid, gid.
        var credentials: (Int32, UInt32, UInt32) = (0, 0, 0)
        var count = socklen_t(MemoryLayout.size(ofValue: credentials))
        guard getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &count) == 0 else {
            throw IdentityError(.refused, "the peer is unknown: \(String(cString: strerror(errno)))")
        }
        let process = credentials.0
        guard process > 0 else {
            throw IdentityError(
                .refused, "the peer's process is not visible here: run the node in the host's pid namespace")
        }
        let handle = processHandle(socket)
        defer { if handle >= 0 { close(handle) } }
        var status = stat()
        guard stat("/proc/\(process)/ns/net", &status) == 0 else {
            throw IdentityError(
                .refused, "the network namespace of process \(process): \(String(cString: strerror(errno)))")
        }
        // Still running after the look: then the number was not given to another process before it.
        guard handle < 0 || isRunning(handle) else {
            throw IdentityError(.refused, "process \(process) ended while it asked")
        }
        return UInt64(status.st_ino)
    }

    /// A pidfd of the peer, or -1 before Linux 6.5. Without it a process that ends right after connecting could have its
    /// number reused before we look; the new owner would have to be in a workload's namespace.
    private static func processHandle(_ socket: Int32) -> Int32 {
        // SO_PEERPIDFD, too new for the headers.
        let option: Int32 = 77
        var handle: Int32 = -1
        var count = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(socket, SOL_SOCKET, option, &handle, &count) == 0 ? handle : -1
    }

    /// A pidfd becomes readable when its process ends (pidfd_open(2)).
    private static func isRunning(_ handle: Int32) -> Bool {
        var entry = pollfd(fd: handle, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, 0) == 0
    }
}
