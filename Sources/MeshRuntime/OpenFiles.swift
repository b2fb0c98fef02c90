import CMeshSystem

/// The process's bound on open descriptors (RLIMIT_NOFILE).
public enum OpenFiles {
    /// Raises the soft limit, and the hard one where that is needed and allowed, and says what holds then; a limit
    /// above `wanted` is left alone.
    /// - Parameter wanted: descriptors; everything the hard limit allows when absent.
    @discardableResult
    public static func raiseLimit(to wanted: UInt64? = nil) throws(SystemError) -> UInt64 {
        var limit: UInt64 = 0
        try SystemError.check(mesh_raise_open_files(wanted ?? 0, &limit), "setrlimit RLIMIT_NOFILE")
        return limit
    }
}
