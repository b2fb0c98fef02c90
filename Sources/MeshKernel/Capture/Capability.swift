internal import CMeshSystem

/// Capabilities (capabilities(7)) that capture and the proxy's sockets need.
enum Capability: UInt64, CaseIterable {
    case bpf = 39
    case netAdmin = 12
    case netRaw = 13
    case sysAdmin = 21
    case sysPtrace = 19
    case perfmon = 38
    case sysResource = 24

    /// Without these there is no capture: programs and attachments, transparent sockets, entering namespaces.
    static let needed: [Capability] = [.bpf, .netAdmin, .netRaw, .sysAdmin]

    var name: String {
        switch self {
        case .bpf: "CAP_BPF"
        case .netAdmin: "CAP_NET_ADMIN"
        case .netRaw: "CAP_NET_RAW"
        case .sysAdmin: "CAP_SYS_ADMIN"
        case .sysPtrace: "CAP_SYS_PTRACE"
        case .perfmon: "CAP_PERFMON"
        case .sysResource: "CAP_SYS_RESOURCE"
        }
    }

    /// What it is for, in a report.
    var purpose: String {
        switch self {
        case .bpf: "load eBPF programs and make maps"
        case .netAdmin: "attach network programs, set marks, change routes and settings in workloads' namespaces"
        case .netRaw: "make transparent sockets, which keep the client's address towards the application"
        case .sysAdmin: "enter workloads' network namespaces"
        case .sysPtrace: "recognise the namespace of a process that asks for its identity"
        case .perfmon: "spare programs the verifier's guards against speculation"
        case .sysResource: "raise the limit of locked memory before Linux 5.11"
        }
    }

    /// What is lost without one that is not needed.
    var loss: String {
        switch self {
        case .bpf, .netAdmin, .netRaw, .sysAdmin: "capture"
        case .sysPtrace: "workloads cannot fetch their identity from the node's socket"
        case .perfmon: "programs run with more guards, a little slower"
        case .sysResource: "programs and maps must fit the limit of locked memory"
        }
    }

    /// The effective set of the calling thread.
    static var effective: Set<Capability> {
        var bits: UInt64 = 0
        guard mesh_capabilities(&bits) == 0 else { return [] }
        return Set(allCases.filter { bits & (1 << $0.rawValue) != 0 })
    }
}
