internal import CBPF
internal import CMeshABI
internal import MeshModel

/// The maps and programs of capture, as loaded for one node.
struct CaptureObjects: Sendable {
    let pods: BPFMap<UInt64, culvert_pod>
    let names: BPFMap<UInt64, culvert_name>
    let proxyCgroups: BPFMap<UInt64, UInt32>
    let agentCgroups: BPFMap<UInt32, culvert_cgroup>
    let listeners: BPFMap<UInt32, UInt64>
    let statistics: BPFMap<UInt32, culvert_counters>
    let endpoints: BPFMap<culvert_address, UInt32>
    let rules: BPFMap<culvert_pair, culvert_rule>
    let services: BPFMap<culvert_endpoint, culvert_service>
    let control: BPFMap<UInt32, culvert_control>
    let flows: BPFMap<culvert_tuple, culvert_flow>
    let flowCount: BPFMap<UInt32, UInt64>
    let scopes: ScopeMaps
    /// nil: the kernel itself tells the cookies of namespaces.
    let questions: BPFMap<UInt64, UInt64>?
    let shortcuts: BPFMap<culvert_tuple, culvert_shortcut>
    /// A ring of `culvert_closed`.
    let closed: Descriptor
    let connect4: Descriptor
    let connect6: Descriptor
    let getpeername4: Descriptor
    let getpeername6: Descriptor
    let sockops: Descriptor
    let acceleration: AccelerationFitness
    let dns: DNSObjects
    /// What every further object of this node shares.
    private let shared: [String: Descriptor]

    /// Loads the connect hooks and what follows sockets. With `pins`, the maps pinned there are used, and new ones
    /// pinned.
    /// - Parameter acceleration: what was found; where the programs do not load all the same, it is unfit.
    static func load(
        pins: Pins?, level: CaptureLevel = .l0, acceleration: AccelerationFitness = .notTried,
        cookies: CookieSource = .probe()
    ) throws(KernelError) -> CaptureObjects {
        var maps: [String: Descriptor] = [:]
        let config = culvert_connect_config(level, cookies)
        let connect = try load(BPFObjects.connect, named: "connect", constants: config, over: &maps, pins: pins)
        let dns = try load(BPFObjects.dns, named: "dns", constants: config, over: &maps, pins: pins)
        var acceleration = acceleration
        var accelerating: BPFObject?
        if acceleration.isFit {
            do throws(KernelError) {
                let accelerate = try load(
                    BPFObjects.accelerate, named: "accelerate", constants: (), over: &maps, pins: pins)
                accelerating = try loadFlows(accelerating: true, over: &maps, pins: pins)
                try attach(accelerate, to: descriptor("ends", in: maps))
            } catch {
                acceleration = .unfit("\(error.what): \(error.cause)")
                accelerating = nil
            }
        }
        let flows: BPFObject
        if let accelerating {
            flows = accelerating
        } else {
            flows = try loadFlows(accelerating: false, over: &maps, pins: pins)
        }
        return CaptureObjects(
            pods: map("pods", in: maps), names: map("names", in: maps), proxyCgroups: map("proxy_cg", in: maps),
            agentCgroups: map("agent_cg", in: maps),
            listeners: map("lst", in: maps), statistics: map("stats", in: maps), endpoints: map("endpoints", in: maps),
            rules: map("rules", in: maps), services: map("services", in: maps), control: map("control", in: maps),
            flows: map("flows", in: maps), flowCount: map("flow_count", in: maps),
            scopes: ScopeMaps(ports: map("port_scopes", in: maps), ranges: map("range_scopes", in: maps)),
            questions: config.answers_questions != 0 ? map("questions", in: maps) : nil,
            shortcuts: map("shortcuts", in: maps), closed: descriptor("closed", in: maps),
            connect4: program("culvert_connect4", of: connect), connect6: program("culvert_connect6", of: connect),
            getpeername4: program("culvert_getpeername4", of: connect),
            getpeername6: program("culvert_getpeername6", of: connect),
            sockops: program("culvert_flows", of: flows), acceleration: acceleration,
            dns: DNSObjects(
                pods: map("dns_pods", in: maps), servers: map("dns_servers", in: maps), programs: dns.programs),
            shared: maps)
    }

    private static func loadFlows(
        accelerating: Bool, over maps: inout [String: Descriptor], pins: Pins?
    ) throws(KernelError) -> BPFObject {
        try load(
            BPFObjects.flows, named: "flows",
            constants: culvert_flows_config(accelerate: accelerating ? 1 : 0, padding: 0), over: &maps, pins: pins)
    }

    /// Loads an object over the maps that are there, which are those of the objects before it and those pinned, and
    /// adds and pins the ones it brings.
    private static func load<Constants>(
        _ text: StaticString, named name: String, constants: Constants, over maps: inout [String: Descriptor],
        pins: Pins?
    ) throws(KernelError) -> BPFObject {
        var pinned: Set<String> = []
        let object = try BPFObject.load(
            text, named: name, constants: constants,
            existing: { wanted in
                if let map = maps[wanted] { return map }
                let old = pins.flatMap { BPFLink.open($0.path(wanted)) }
                if old != nil { pinned.insert(wanted) }
                return old
            })
        for (name, map) in object.maps where maps[name] == nil {
            if let pins, !pinned.contains(name) { try BPFLink.pin(map, at: pins.path(name)) }
            maps[name] = map
        }
        return object
    }

    /// Loads the lookup program of one workload over this node's maps.
    func loadLookup(_ config: culvert_lookup_config) throws(KernelError) -> Descriptor {
        let object = try BPFObject.load(BPFObjects.lookup, named: "lookup", constants: config, existing: { shared[$0] })
        return Self.program("culvert_lookup", of: object)
    }

    /// What the kernel calls the lookup program: names are cut at 15 bytes, this one is not.
    static let lookupName = "culvert_lookup"

    private static func descriptor(_ name: String, in maps: [String: Descriptor]) -> Descriptor {
        guard let map = maps[name] else { preconditionFailure("no object has a map \(name)") }
        return map
    }

    static func map<Key, Value>(_ name: String, in maps: [String: Descriptor]) -> BPFMap<Key, Value> {
        BPFMap(descriptor: descriptor(name, in: maps), name: name)
    }

    static func program(_ name: String, of object: BPFObject) -> Descriptor {
        guard let program = object.programs[name] else { preconditionFailure("no program \(name) in its object") }
        return program
    }
}

/// The role of a listener in its slot.
enum ListenerRole: UInt32, CaseIterable {
    case outbound, inbound, tunnel, dns

    func key(slot: UInt32) -> UInt32 { slot * CULVERT_ROLES_PER_SLOT + rawValue }
}

extension culvert_connect_config {
    /// As this kernel allows.
    init(_ level: CaptureLevel, _ cookies: CookieSource) {
        func has(_ helper: bpf_func_id) -> UInt32 {
            libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, helper, nil) == 1 ? 1 : 0
        }
        // bpf_set_retval came with 5.18; without it a refusal reads EPERM instead of ECONNREFUSED. Without sight of
        // MPTCP its connections may be direct ones: native, as between any two hosts.
        self.init(
            refuse_with_errno: has(BPF_FUNC_set_retval), notes_legs: level == .l1 ? 1 : 0,
            sees_multipath: has(BPF_FUNC_skc_to_mptcp_sock), answers_questions: cookies == .hooks ? 1 : 0)
    }
}

extension culvert_lookup_config {
    init(slot: UInt32, loopback: UInt32, own: [culvert_address], level: CaptureLevel = .l0) {
        self.init()
        self.slot = slot
        sees_ingress = level == .l0 ? 1 : 0
        loopback_ifindex = loopback
        own_count = UInt32(own.count)
        withUnsafeMutableBytes(of: &self.own) { $0.fill(with: own) }
    }
}

extension culvert_name {
    /// - Returns: nil when the name is too long.
    init?(_ name: ObjectName) {
        self.init()
        let bytes = Array(name.description.utf8)
        guard bytes.count < CULVERT_NAME_BYTES else { return nil }
        withUnsafeMutableBytes(of: &text) { $0.copyBytes(from: bytes) }
    }

    var objectName: ObjectName {
        let text = withUnsafeBytes(of: text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let pieces = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        return ObjectName(namespace: pieces.first ?? "", name: pieces.count > 1 ? pieces[1] : "")
    }
}

extension culvert_pod {
    var settings: NamespaceSettings {
        get {
            NamespaceSettings(
                accept: saved_tcp_fwmark_accept, reflect4: saved_fwmark_reflect_v4, reflect6: saved_fwmark_reflect_v6)
        }
        set {
            saved_tcp_fwmark_accept = newValue.accept
            saved_fwmark_reflect_v4 = newValue.reflect4
            saved_fwmark_reflect_v6 = newValue.reflect6
        }
    }

    /// The workload's own addresses.
    var addresses: [culvert_address] {
        withUnsafeBytes(of: own) { bytes in
            (0..<min(Int(own_count), Int(CULVERT_MAX_OWN_ADDRESSES))).map { index in
                bytes.loadUnaligned(
                    fromByteOffset: index * MemoryLayout<culvert_address>.stride, as: culvert_address.self)
            }
        }
    }

    mutating func setOwn(_ addresses: [culvert_address]) {
        own_count = UInt8(addresses.count)
        withUnsafeMutableBytes(of: &own) { $0.fill(with: addresses) }
    }
}

extension UnsafeMutableRawBufferPointer {
    /// Fills a C array of addresses; the places left over become zero.
    fileprivate func fill(with addresses: [culvert_address]) {
        for index in indices { self[index] = 0 }
        for (index, address) in addresses.enumerated() {
            storeBytes(
                of: address, toByteOffset: index * MemoryLayout<culvert_address>.stride, as: culvert_address.self)
        }
    }
}
