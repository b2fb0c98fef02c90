internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
public import MeshModel
internal import Synchronization

/// DNS capture of single workloads, which are captured already: questions by UDP to any server outside the workload
/// come to the proxy's server inside it; see dns.bpf.c. It lives and dies with the workload's capture, survives the
/// daemon like it, and goes with `detach` and `uninstall`.
extension KernelCapture {
    /// Begins or renews.
    /// - Parameters:
    ///   - namespace: the workload's network namespace.
    ///   - socket: UDP, both IP versions, on port 15053.
    @discardableResult
    public func captureDNS(
        of workload: ObjectName, namespace: Int32, socket: Int32
    ) throws(KernelError) -> DNSOrigins {
        let descriptor = try Descriptor(duplicating: namespace, what: "keeping the namespace", at: "\(workload)")
        try state.withLock { state throws(KernelError) in
            guard let handle = state.workloads[workload]?.handle else {
                throw KernelError(
                    .badRequest, "capturing DNS", at: "\(workload)", cause: "the workload is not captured",
                    remedy: "attach it first")
            }
            let hasIPv6 = try inNamespace(descriptor.raw, place: "\(workload)") { () throws(KernelError) -> Bool in
                try DNSRoute.install(place: "\(workload)")
            }
            witness(.dnsRouted)
            try objects.setListener(socket, .dns, slot: handle.slot)
            try objects.dns.pods.set(
                culvert_dns_pod(slot: handle.slot, ipv6: hasIPv6 ? 1 : 0), for: handle.cookie)
            witness(.dnsCaptured)
        }
        return DNSOrigins(aliases: objects.dns.servers)
    }

    /// Ends it: questions go where they are meant to. Workloads whose DNS is not captured are no error.
    /// The route stays until the workload goes: sockets connected before keep their route.
    public func releaseDNS(of workload: ObjectName) {
        state.withLock { state in
            guard let handle = state.workloads[workload]?.handle else { return }
            objects.dns.pods.remove(handle.cookie)
            objects.listeners.remove(ListenerRole.dns.key(slot: handle.slot))
        }
    }
}

/// What capturing DNS takes in the kernel.
struct DNSObjects: Sendable {
    let pods: BPFMap<UInt64, culvert_dns_pod>
    let servers: BPFMap<UInt32, culvert_address>
    let programs: [String: Descriptor]

    /// Receiving and naming the peer come first: an alias must not be seen.
    var hooks: [(Descriptor, bpf_attach_type, String)] {
        [
            ("recvmsg4", BPF_CGROUP_UDP4_RECVMSG), ("recvmsg6", BPF_CGROUP_UDP6_RECVMSG),
            ("peername4", BPF_CGROUP_INET4_GETPEERNAME), ("peername6", BPF_CGROUP_INET6_GETPEERNAME),
            ("sendmsg4", BPF_CGROUP_UDP4_SENDMSG), ("sendmsg6", BPF_CGROUP_UDP6_SENDMSG),
            ("connect4", BPF_CGROUP_INET4_CONNECT), ("connect6", BPF_CGROUP_INET6_CONNECT),
        ].map { name, type in
            guard let program = programs["culvert_dns_\(name)"] else { preconditionFailure("no program \(name)") }
            return (program, type, "dns_\(name)")
        }
    }
}

/// The route that makes the aliases of IPv6 servers addresses of lo. IPv4 has 127.0.0.0/8 for that.
///
/// The functions work on the calling thread's network namespace.
enum DNSRoute {
    /// - Returns: false where the namespace has no IPv6.
    static func install(place: String) throws(KernelError) -> Bool {
        var route = try route(place: place)
        let code = mesh_local_route_set(&route)
        if isWithoutIPv6(code) { return false }
        if code < 0 { throw refusal("adding the route of DNS aliases", code, place) }
        return true
    }

    static func remove(place: String) throws(KernelError) {
        var route = try route(place: place)
        let code = mesh_local_route_remove(&route)
        if code < 0, code != -ESRCH, code != -ENOENT, !isWithoutIPv6(code) {
            throw refusal("removing the route of DNS aliases", code, place)
        }
    }

    private static func route(place: String) throws(KernelError) -> mesh_local_route {
        var route = mesh_local_route()
        // RT_TABLE_LOCAL: it needs no rule, and the main table cannot come before it.
        route.table = 255
        route.interface = if_nametoindex("lo")
        route.ipv4 = false
        route.prefix_bits = UInt8(CULVERT_DNS_PREFIX_BITS)
        withUnsafeMutableBytes(of: &route.destination) { bytes in
            bytes.storeBytes(of: CULVERT_DNS_PREFIX_0.bigEndian, as: UInt32.self)
            bytes.storeBytes(of: CULVERT_DNS_PREFIX_1.bigEndian, toByteOffset: 4, as: UInt32.self)
        }
        return route
    }

    private static func isWithoutIPv6(_ code: Int32) -> Bool {
        // EACCES and EINVAL: IPv6 is switched off by disable_ipv6 on lo.
        [-EAFNOSUPPORT, -EOPNOTSUPP, -ENODEV, -EACCES, -EINVAL].contains(code)
    }

    private static func refusal(_ what: String, _ code: Int32, _ place: String) -> KernelError {
        KernelError(.namespaceRefused, what, at: place, code: code, remedy: "run with CAP_NET_ADMIN")
    }
}

extension culvert_address {
    /// The model's form.
    var ip: IPAddress {
        withUnsafeBytes(of: self) { bytes in
            IPAddress(
                high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }
}
