internal import CBPF
internal import CMeshABI
internal import MeshModel

/// The maps and programs of capture, as loaded for one node.
struct CaptureObjects: Sendable {
    let pods: BPFMap<UInt64, culvert_pod>
    let names: BPFMap<UInt64, culvert_name>
    let proxyCgroups: BPFMap<UInt64, UInt32>
    let listeners: BPFMap<UInt32, UInt64>
    let statistics: BPFMap<UInt32, UInt64>
    let connect4: Descriptor
    let connect6: Descriptor

    private static let mapNames = ["pods", "names", "proxy_cg", "lst", "stats"]

    /// Loads the connect hooks. With `pins`, the maps pinned there are used, and new ones pinned.
    static func load(pins: Pins?) throws(KernelError) -> CaptureObjects {
        var reusing: [String: Descriptor] = [:]
        if let pins {
            for name in mapNames { reusing[name] = BPFLink.open(pins.path(name)) }
        }
        // bpf_set_retval came with 5.18; without it a refusal reads EPERM instead of ECONNREFUSED.
        let refuseWithErrno = libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_set_retval, nil) == 1
        let object = try BPFObject.load(
            BPFObjects.connect, named: "connect",
            constants: culvert_connect_config(refuse_with_errno: refuseWithErrno ? 1 : 0, padding: 0), reusing: reusing)
        if let pins {
            for name in mapNames where reusing[name] == nil {
                try BPFLink.pin(map(name, of: object), at: pins.path(name))
            }
        }
        return CaptureObjects(
            pods: BPFMap(descriptor: map("pods", of: object), name: "pods"),
            names: BPFMap(descriptor: map("names", of: object), name: "names"),
            proxyCgroups: BPFMap(descriptor: map("proxy_cg", of: object), name: "proxy_cg"),
            listeners: BPFMap(descriptor: map("lst", of: object), name: "lst"),
            statistics: BPFMap(descriptor: map("stats", of: object), name: "stats"),
            connect4: program("culvert_connect4", of: object), connect6: program("culvert_connect6", of: object))
    }

    /// Loads the lookup program of one workload over this node's maps.
    func loadLookup(_ config: culvert_lookup_config) throws(KernelError) -> Descriptor {
        let object = try BPFObject.load(
            BPFObjects.lookup, named: "lookup", constants: config,
            reusing: ["lst": listeners.descriptor, "stats": statistics.descriptor])
        return Self.program("culvert_lookup", of: object)
    }

    /// What the kernel calls the lookup program: names are cut at 15 bytes, this one is not.
    static let lookupName = "culvert_lookup"

    private static func map(_ name: String, of object: BPFObject) -> Descriptor {
        guard let map = object.maps[name] else { preconditionFailure("the connect object has no map \(name)") }
        return map
    }

    private static func program(_ name: String, of object: BPFObject) -> Descriptor {
        guard let program = object.programs[name] else { preconditionFailure("no program \(name) in its object") }
        return program
    }
}

/// The role of a listener in its slot.
enum ListenerRole: UInt32, CaseIterable {
    case outbound, inbound, tunnel

    func key(slot: UInt32) -> UInt32 { slot * CULVERT_ROLES_PER_SLOT + rawValue }
}

extension culvert_lookup_config {
    init(slot: UInt32, loopback: UInt32, own: [culvert_address]) {
        self.init()
        self.slot = slot
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
