internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
internal import MeshModel

/// The connect hooks of level L2 (BPF/rewrite.bpf.c).
///
/// Nothing of it is pinned: the hooks live as long as this object, and what connects without them meets the rules, which
/// refuse it. A daemon that starts anew makes its own.
struct ConnectRewrite: Sendable {
    private let pods: BPFMap<UInt64, culvert_pod>
    private let scopes: ScopeMaps
    private let counters: BPFMap<UInt32, culvert_counters>
    private let questions: BPFMap<UInt64, UInt64>?
    private let proxy: ProxyCgroup
    /// Attachments; each ends with its descriptor.
    private let links: [Descriptor]

    /// Loads and attaches. The process moves into the hooked subtree: where its sockets are made decides whether they
    /// are told original destinations.
    init(options: CaptureOptions, cookies: CookieSource = .probe()) throws(KernelError) {
        try KernelCapture.requireCapabilities()
        let attachPoint = try CgroupMount.attachPoint(options)
        let object = try Self.load(cookies)
        let maps = object.maps
        pods = CaptureObjects.map("pods", in: maps)
        counters = CaptureObjects.map("stats", in: maps)
        scopes = ScopeMaps(
            ports: CaptureObjects.map("port_scopes", in: maps), ranges: CaptureObjects.map("range_scopes", in: maps))
        questions = cookies == .hooks ? CaptureObjects.map("questions", in: maps) : nil
        proxy = try ProxyCgroup.settle(
            process: getpid(), attachPoint: attachPoint, nodeName: options.nodeName, hooked: true)
        guard let own = proxy.path, let id = proxy.id else { preconditionFailure("a hooked process has a cgroup") }
        let exempt: BPFMap<UInt64, UInt32> = CaptureObjects.map("proxy_cg", in: maps)
        try exempt.set(1, for: id)
        links = try Self.attach(object, at: attachPoint, proxy: own)
    }

    static func load(_ cookies: CookieSource) throws(KernelError) -> BPFObject {
        try BPFObject.load(BPFObjects.rewrite, named: "rewrite", constants: culvert_connect_config(.l2, cookies))
    }

    /// In the order of attachment: the connect hooks last, so that nothing is rewritten whose destination would not be
    /// told.
    static let hooks: [(name: String, type: bpf_attach_type)] = [
        ("culvert_original_destination", BPF_CGROUP_GETSOCKOPT), ("culvert_noted", BPF_CGROUP_SOCK_OPS),
        ("culvert_getpeername4", BPF_CGROUP_INET4_GETPEERNAME), ("culvert_getpeername6", BPF_CGROUP_INET6_GETPEERNAME),
        ("culvert_connect4", BPF_CGROUP_INET4_CONNECT), ("culvert_connect6", BPF_CGROUP_INET6_CONNECT),
    ]

    /// - Parameter proxy: the cgroup whose sockets are told original destinations.
    private static func attach(
        _ object: BPFObject, at attachPoint: String, proxy: String
    ) throws(KernelError) -> [Descriptor] {
        var links: [Descriptor] = []
        for hook in hooks {
            let path = hook.type == BPF_CGROUP_GETSOCKOPT ? proxy : attachPoint
            let raw = mesh_open(path)
            guard raw >= 0 else {
                throw KernelError(
                    .cgroupUnavailable, "opening the cgroup", at: path, code: raw, remedy: "check that it still exists")
            }
            let cgroup = Descriptor(adopting: raw)
            let link = bpf_link_create(CaptureObjects.program(hook.name, of: object).raw, cgroup.raw, hook.type, nil)
            guard link >= 0 else {
                throw KernelError(
                    .attachRefused, "attaching \(hook.name)", at: path, code: link,
                    remedy: link == -EPERM
                        ? "run with CAP_BPF and CAP_NET_ADMIN, and detach any program attached here without multi mode"
                        : "this needs bpf links for cgroups (5.7) and getpeername hooks (5.8)")
            }
            links.append(Descriptor(adopting: link))
        }
        return links
    }

    func cookie(of namespace: Descriptor, place: String) throws(KernelError) -> UInt64 {
        try namespaceCookie(of: namespace, questions: questions, place: place)
    }

    /// Rewrites the connections of a workload from now on.
    /// - Returns: how many entries of the scope found no room. What they keep out is captured.
    func activate(
        _ cookie: UInt64, slot: UInt32, addresses: [IPAddress], scope: CaptureScope, place: String
    ) throws(KernelError) -> Int {
        try counters.make(slot)
        let unplaced = try scopes.set(scope, of: slot, place: place)
        var pod = culvert_pod()
        pod.slot = slot
        pod.flags = CULVERT_POD_ACTIVE.rawValue
        pod.setOwn(addresses.map(\.abi))
        try pods.set(pod, for: cookie)
        return unplaced
    }

    func setScope(_ scope: CaptureScope, slot: UInt32, place: String) throws(KernelError) -> Int {
        try scopes.set(scope, of: slot, place: place)
    }

    func deactivate(_ cookie: UInt64, slot: UInt32) {
        pods.remove(cookie)
        scopes.remove(slot)
        counters.retire(slot)
    }

    /// What the hooks count.
    static let counted: [CaptureEvent] = [
        .outboundMarked, .exemptProxy, .exemptLocal, .exemptExcluded, .refusedLinkLocal, .refusedNoAddress,
        .refusedUnnoted,
    ]

    /// The counters of one slot, or of all with those that are gone.
    func statistics(of slot: UInt32? = nil) -> CaptureStatistics {
        var result = CaptureStatistics(counted: Self.counted)
        for slot in slot.map({ [$0] }) ?? counters.keys {
            if let sums = counters.sums(of: slot) { result.add(sums) }
        }
        return result
    }

    /// Puts the process back where it was.
    func leave() { proxy.leave(process: getpid()) }
}
