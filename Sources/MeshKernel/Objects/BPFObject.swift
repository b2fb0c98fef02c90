internal import CBPF
internal import Glibc

/// One embedded object, loaded: its programs and maps stay alive through these descriptors alone.
struct BPFObject: Sendable {
    let programs: [String: Descriptor]
    let maps: [String: Descriptor]

    /// Loads an object.
    /// - Parameters:
    ///   - constants: copied over `.rodata`, which holds exactly one struct of `CMeshABI`.
    ///   - existing: the map to use instead of making a new one of a name.
    static func load<Constants>(
        _ text: StaticString, named name: String, constants: Constants,
        existing: (String) -> Descriptor? = { _ in nil }
    ) throws(KernelError) -> BPFObject {
        _ = quiet
        var options = bpf_object_open_opts()
        options.sz = MemoryLayout<bpf_object_open_opts>.size
        let image = decodeBase64(text)
        let opened = name.withCString { label in
            options.object_name = label
            return image.withUnsafeBytes { bpf_object__open_mem($0.baseAddress, $0.count, &options) }
        }
        guard let object = opened else {
            throw KernelError(
                .programRefused, "reading the eBPF object", at: name, code: errno,
                remedy: "the build is broken: rebuild with swift build")
        }
        defer { bpf_object__close(object) }

        if let map = bpf_object__find_map_by_name(object, ".rodata") {
            let code = withUnsafeBytes(of: constants) { bpf_map__set_initial_value(map, $0.baseAddress, $0.count) }
            precondition(code == 0, "\(name): .rodata is not the one agreed struct")
        }
        try eachMap(of: object) { mapName, map throws(KernelError) in
            guard let descriptor = existing(mapName) else { return }
            let code = bpf_map__reuse_fd(map, descriptor.raw)
            if code < 0 {
                throw KernelError(
                    .programRefused, "reusing the map \(mapName)", at: name, code: code,
                    remedy: "stop the daemon and remove its pins under the bpffs")
            }
        }
        try load(object, named: name)
        return BPFObject(programs: try programs(of: object, name), maps: try maps(of: object, name))
    }

    /// libbpf prints to stderr unless told otherwise; our errors carry what it would say.
    private static let quiet: Void = { _ = libbpf_set_print(nil) }()
    private static let logBytes = 1 << 18

    private static func load(_ object: OpaquePointer, named name: String) throws(KernelError) {
        var logs: [(program: String, text: UnsafeMutablePointer<CChar>)] = []
        defer { for log in logs { log.text.deallocate() } }
        var next = bpf_object__next_program(object, nil)
        while let program = next {
            let log = UnsafeMutablePointer<CChar>.allocate(capacity: logBytes)
            log.initialize(repeating: 0, count: logBytes)
            logs.append((String(cString: bpf_program__name(program)), log))
            _ = bpf_program__set_log_buf(program, log, logBytes)
            next = bpf_object__next_program(object, program)
        }
        let code = bpf_object__load(object)
        guard code < 0 else { return }
        let refused = logs.last { $0.text[0] != 0 }
        let tail = refused.map { tailLines(String(cString: $0.text), count: 8) }
        throw KernelError(
            .programRefused, "loading the eBPF program \(refused?.program ?? name)", at: name,
            cause: errorText(code) + (tail.map { ": verifier: \($0)" } ?? ""),
            remedy: code == -EPERM
                ? "run with CAP_BPF and CAP_NET_ADMIN, and check kernel lockdown and SELinux"
                : "this needs a kernel of 5.17 or later with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, CONFIG_INET")
    }

    private static func programs(of object: OpaquePointer, _ name: String) throws(KernelError) -> [String: Descriptor] {
        var found: [String: Descriptor] = [:]
        var next = bpf_object__next_program(object, nil)
        while let program = next {
            found[String(cString: bpf_program__name(program))] = try Descriptor(
                duplicating: bpf_program__fd(program), what: "keeping an eBPF program", at: name)
            next = bpf_object__next_program(object, program)
        }
        return found
    }

    private static func maps(of object: OpaquePointer, _ name: String) throws(KernelError) -> [String: Descriptor] {
        var found: [String: Descriptor] = [:]
        try eachMap(of: object) { mapName, map throws(KernelError) in
            found[mapName] = try Descriptor(
                duplicating: bpf_map__fd(map), what: "keeping an eBPF map", at: name)
        }
        return found
    }

    /// The maps that the source names; those that libbpf makes for constants are the object's own.
    private static func eachMap(
        of object: OpaquePointer, _ body: (String, OpaquePointer) throws(KernelError) -> Void
    ) throws(KernelError) {
        var next = bpf_object__next_map(object, nil)
        while let map = next {
            if !bpf_map__is_internal(map) { try body(String(cString: bpf_map__name(map)), map) }
            next = bpf_object__next_map(object, map)
        }
    }
}

/// The last lines of a log joined by ` | `, without the verifier's closing statistics.
func tailLines(_ text: String, count: Int) -> String {
    text.split(separator: "\n").filter { !$0.hasPrefix("processed ") }.suffix(count).joined(separator: " | ")
}
