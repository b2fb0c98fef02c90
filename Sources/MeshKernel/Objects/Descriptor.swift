internal import CMeshSystem
internal import Glibc

/// An open file that closes itself with its last owner.
final class Descriptor: Sendable {
    let raw: Int32

    init(adopting raw: Int32) {
        precondition(raw >= 0, "a descriptor is never negative")
        self.raw = raw
    }

    /// A second, close-on-exec descriptor of the same open file.
    convenience init(duplicating raw: Int32, what: String, at place: String) throws(KernelError) {
        let copy = fcntl(raw, F_DUPFD_CLOEXEC, 3)
        guard copy >= 0 else {
            throw KernelError(
                .system, what, at: place, code: errno, remedy: "raise the limit of open files (ulimit -n)")
        }
        self.init(adopting: copy)
    }

    deinit { mesh_close(raw) }
}
