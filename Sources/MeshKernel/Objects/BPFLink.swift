internal import CBPF
internal import Glibc

/// A program's attachment to a cgroup or namespace, kept by a pin: it outlives the process.
enum BPFLink {
    struct Info {
        let programID: UInt32
        /// The cgroup's id or the namespace's inode; 0 when the target is gone.
        let target: UInt64
    }

    /// Attaches `program`, or, where `pin` already holds a link to the same target, replaces its program: every event
    /// runs wholly the old or wholly the new one.
    ///
    /// A program is replaced only by compare-and-swap, and only by one of the same name, which our programs keep from
    /// version to version: whatever else somebody put there is left alone and reported.
    /// - Parameter target: what `Info.target` must say for the pinned link to be the right one.
    /// - Returns: whether a pinned link was taken over.
    static func attach(
        _ program: Descriptor, to descriptor: Int32, target: UInt64, type: bpf_attach_type, pin: String, what: String
    ) throws(KernelError) -> Bool {
        if let link = open(pin), let info = info(link, type: type), info.target == target {
            guard let old = self.program(info.programID), let found = programName(old) else {
                throw KernelError(
                    .attachRefused, "reading the program of \(what)", at: pin,
                    cause: "program \(info.programID) cannot be opened", remedy: "run with CAP_SYS_ADMIN")
            }
            guard found == programName(program) else {
                throw KernelError(
                    .attachRefused, "replacing the program of \(what)", at: pin,
                    cause: "somebody put another program there: \(found) (program \(info.programID))",
                    remedy: "find out who did; remove the pin to have it attached anew")
            }
            try replace(old, by: program, of: link, pin: pin, what: what)
            return true
        }
        let raw = bpf_link_create(program.raw, descriptor, type, nil)
        guard raw >= 0 else {
            throw KernelError(
                .attachRefused, "attaching \(what)", at: pin, code: raw,
                remedy: raw == -EPERM
                    ? "run with CAP_BPF and CAP_NET_ADMIN, and detach any program attached here without multi mode"
                    : "this needs bpf links for cgroups and network namespaces (5.8)")
        }
        let link = Descriptor(adopting: raw)
        // Only now may the pin of a dead or foreign target go: there is no moment without a program.
        unlink(pin)
        try self.pin(link, at: pin)
        return false
    }

    /// Replaces the program of a link if it is still `old`.
    static func replace(
        _ old: Descriptor, by program: Descriptor, of link: Descriptor, pin: String, what: String
    ) throws(KernelError) {
        var options = bpf_link_update_opts()
        options.sz = MemoryLayout<bpf_link_update_opts>.size
        options.flags = UInt32(BPF_F_REPLACE)
        options.old_prog_fd = UInt32(bitPattern: old.raw)
        let code = bpf_link_update(link.raw, program.raw, &options)
        if code == 0 { return }
        // What the kernel says when the program is another than the one expected.
        guard code != -EPERM else {
            throw KernelError(
                .attachRefused, "replacing the program of \(what)", at: pin,
                cause: "somebody else replaced it in the same moment",
                remedy: "see that one daemon runs for this node, then start again")
        }
        throw KernelError(
            .attachRefused, "replacing the program of \(what)", at: pin, code: code,
            remedy: "remove the pin and start again")
    }

    static func pin(_ descriptor: Descriptor, at path: String) throws(KernelError) {
        let code = bpf_obj_pin(descriptor.raw, path)
        if code < 0 {
            throw KernelError(
                .pinRefused, "pinning", at: path, code: code, remedy: "check that the path is on a writable bpffs")
        }
    }

    /// The pinned object at a path.
    static func open(_ pin: String) -> Descriptor? {
        let raw = bpf_obj_get(pin)
        return raw >= 0 ? Descriptor(adopting: raw) : nil
    }

    static func info(_ link: Descriptor, type: bpf_attach_type) -> Info? {
        var info = bpf_link_info()
        var size = UInt32(MemoryLayout<bpf_link_info>.size)
        guard bpf_obj_get_info_by_fd(link.raw, &info, &size) == 0 else { return nil }
        let target = type == BPF_SK_LOOKUP ? UInt64(info.netns.netns_ino) : info.cgroup.cgroup_id
        return Info(programID: info.prog_id, target: target)
    }

    /// Ids of the programs that run at a cgroup (with those of its ancestors) or in a namespace, or a negated errno.
    static func programs(at descriptor: Int32, type: bpf_attach_type) -> Result<[UInt32], QueryError> {
        var ids = [UInt32](repeating: 0, count: 64)
        var count = UInt32(ids.count)
        let flags: UInt32 = type == BPF_SK_LOOKUP ? 0 : UInt32(BPF_F_QUERY_EFFECTIVE)
        let code = bpf_prog_query(descriptor, type, flags, nil, &ids, &count)
        return code < 0 ? .failure(QueryError(code: code)) : .success(Array(ids.prefix(Int(count))))
    }

    struct QueryError: Error { let code: Int32 }

    static func program(_ id: UInt32) -> Descriptor? {
        let raw = bpf_prog_get_fd_by_id(id)
        return raw >= 0 ? Descriptor(adopting: raw) : nil
    }

    /// The name a program was loaded with, at most 15 bytes.
    static func programName(_ id: UInt32) -> String? { program(id).flatMap(programName) }

    static func programName(_ program: Descriptor) -> String? {
        var info = bpf_prog_info()
        var size = UInt32(MemoryLayout<bpf_prog_info>.size)
        guard bpf_obj_get_info_by_fd(program.raw, &info, &size) == 0 else { return nil }
        return withUnsafeBytes(of: info.name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}
