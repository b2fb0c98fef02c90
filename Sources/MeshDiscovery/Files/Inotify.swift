import Glibc

/// An inotify descriptor and what it watches: whole directories, names in directories, and files themselves.
///
/// A watch belongs to an inode, so two paths to one directory share it; removed inodes drop theirs (`IN_IGNORED`).
struct Inotify: ~Copyable {
    /// Which events of a watch matter.
    enum Interest: Equatable {
        /// Everything that happens to these names in the directory.
        case names(Set<String>)
        /// Everything in the directory or to the file.
        case all

        func merged(with other: Interest) -> Interest {
            if case .names(let left) = self, case .names(let right) = other { return .names(left.union(right)) }
            return .all
        }
    }

    let descriptor: Int32
    private var interests: [Int32: Interest] = [:]

    /// Names coming, going and being replaced.
    private static let entries =
        UInt32(IN_CREATE) | UInt32(IN_DELETE) | UInt32(IN_MOVED_FROM) | UInt32(IN_MOVED_TO) | UInt32(IN_DELETE_SELF)
        | UInt32(IN_MOVE_SELF)
    /// Contents too. `IN_MODIFY` only makes the wait for quiet start anew while somebody is still writing.
    private static let contents = entries | UInt32(IN_MODIFY) | UInt32(IN_CLOSE_WRITE) | UInt32(IN_ATTRIB)

    init?() {
        let descriptor = inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC))
        if descriptor < 0 { return nil }
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// Makes the watches be exactly those of `wanted`. Paths that are gone meanwhile are left out: the directory above
    /// them is watched and tells when they come back. False when the kernel refused one for lack of room.
    mutating func watch(_ wanted: [String: Interest]) -> Bool {
        var next: [Int32: Interest] = [:]
        var isComplete = true
        for (path, interest) in wanted {
            let mask = interest == .all ? Self.contents : Self.entries
            let watch = inotify_add_watch(descriptor, path, mask | UInt32(IN_DONT_FOLLOW) | UInt32(IN_MASK_ADD))
            if watch >= 0 {
                next[watch] = next[watch]?.merged(with: interest) ?? interest
            } else if errno == ENOSPC {
                isComplete = false
            }
        }
        for watch in interests.keys where next[watch] == nil { inotify_rm_watch(descriptor, watch) }
        interests = next
        return isComplete
    }

    /// Takes every event there is; true when one of them matters.
    mutating func drain() -> Bool {
        var isRelevant = false
        let size = 64 * 1024
        withUnsafeTemporaryAllocation(byteCount: size, alignment: MemoryLayout<inotify_event>.alignment) { buffer in
            while true {
                let count = read(descriptor, buffer.baseAddress!, size)
                if count <= 0 { return }
                var offset = 0
                while offset + MemoryLayout<inotify_event>.size <= count {
                    let event = buffer.loadUnaligned(fromByteOffset: offset, as: inotify_event.self)
                    let start = offset + MemoryLayout<inotify_event>.size
                    let name = buffer[start..<start + Int(event.len)].prefix { $0 != 0 }
                    if matters(event, name: String(decoding: name, as: UTF8.self)) { isRelevant = true }
                    offset = start + Int(event.len)
                }
            }
        }
        return isRelevant
    }

    private mutating func matters(_ event: inotify_event, name: String) -> Bool {
        // Events were lost: anything may have happened.
        if event.mask & UInt32(IN_Q_OVERFLOW) != 0 { return true }
        guard let interest = interests[event.wd] else { return false }
        if event.mask & UInt32(IN_IGNORED) != 0 {
            interests[event.wd] = nil
            return true
        }
        guard case .names(let names) = interest else { return true }
        // Without a name the directory itself went away or moved.
        return name.isEmpty || names.contains(name)
    }
}
