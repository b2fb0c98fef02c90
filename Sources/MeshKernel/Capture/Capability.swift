internal import CMeshSystem

/// Capabilities (capabilities(7)) that capture and the proxy's sockets need.
enum Capability: UInt64, CaseIterable {
    case netAdmin = 12
    case netRaw = 13
    case sysPtrace = 19
    case sysAdmin = 21
    case bpf = 39

    /// Without these there is no capture: programs and attachments, transparent sockets, entering namespaces.
    static let needed: [Capability] = [.bpf, .netAdmin, .netRaw, .sysAdmin]

    var name: String {
        switch self {
        case .netAdmin: "CAP_NET_ADMIN"
        case .netRaw: "CAP_NET_RAW"
        case .sysPtrace: "CAP_SYS_PTRACE"
        case .sysAdmin: "CAP_SYS_ADMIN"
        case .bpf: "CAP_BPF"
        }
    }

    /// What it is for, in a report.
    var purpose: String {
        switch self {
        case .netAdmin: "attach network programs, set marks, change routes and settings in workloads' namespaces"
        case .netRaw: "transparent sockets, which keep the client's address towards the application"
        case .sysPtrace: "recognise the namespace of a process that asks for its identity"
        case .sysAdmin: "enter workloads' network namespaces"
        case .bpf: "load eBPF programs and make maps"
        }
    }

    /// The effective set of the calling thread.
    static var effective: Set<Capability> {
        var bits: UInt64 = 0
        guard mesh_capabilities(&bits) == 0 else { return [] }
        return Set(allCases.filter { bits & (1 << $0.rawValue) != 0 })
    }
}
