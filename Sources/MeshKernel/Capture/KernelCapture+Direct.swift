internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
public import MeshModel
internal import Synchronization

// Tier T1 seen from the daemon: it sets the rules that the connect hook looks up, and answers for the connections that
// were made by them.
//
// Invariants:
// - A rule counts only under the current generation. Whenever something may have been taken back, the generation moves
//   first, so that from then on the proxy decides, until the rules of the new one are written.
// - Every direct connection stands in `flows` with the generation that allowed it. Whoever moves the generation has to
//   decide again about those of older ones: `confirm` or `end` them.
// - A slot's rules and connections go before the slot can stand for another workload.

/// What this daemon has written.
struct DirectState: Sendable {
    var generation: UInt32 = 0
    /// What the map holds, by slots; nil: what an earlier daemon left, or an attempt that failed.
    var rules: [UInt64: DirectRule]?
    /// By service address; nil: as for the rules.
    var services: [SocketAddress: [SocketAddress]]?
    var isEnabled = false
    /// Direct connections may be accelerated.
    var isAccelerating = false

    var control: culvert_control {
        culvert_control(
            generation: generation,
            flags: (isEnabled ? CULVERT_CONTROL_DIRECT.rawValue : 0)
                | (isAccelerating ? CULVERT_CONTROL_ACCELERATE.rawValue : 0))
    }
}

extension KernelCapture {
    /// Why this kernel cannot have direct connections: it could not end them when policy takes them back. nil: it can.
    /// Tries with a connection of its own over loopback; what fails for another reason is not held against the kernel.
    public static func directObstacle() -> String? {
        switch mesh_probe_destroy() {
        case -EOPNOTSUPP: "the kernel has no SOCK_DESTROY (CONFIG_INET_DIAG_DESTROY)"
        case -ENOENT: "the kernel has no tcp_diag (CONFIG_INET_TCP_DIAG)"
        case -EPERM: "ending connections is not permitted (CAP_NET_ADMIN)"
        case -EISCONN: "the kernel acknowledges SOCK_DESTROY and does nothing"
        default: nil
        }
    }

    /// Sets which same-node connections need no proxy. Pairs that are not named, or whose workloads are not captured, go
    /// through the proxy. When it throws, what the kernel holds is not known and the next call writes all of it.
    /// - Returns: how many pairs have no room in the kernel's map; they go through the proxy. Each call tries them again.
    @discardableResult
    public func setDirectRules(_ rules: [DirectPair: DirectRule]) throws(KernelError) -> Int {
        try state.withLock { state throws(KernelError) in
            var wanted: [UInt64: DirectRule] = [:]
            wanted.reserveCapacity(rules.count)
            for (pair, rule) in rules {
                guard let source = state.workloads[pair.source], let destination = state.workloads[pair.destination],
                    source.namespace != nil, destination.namespace != nil
                else { continue }
                wanted[culvert_pair(source.handle.slot, destination.handle.slot).number] = rule
            }
            let before = state.direct.rules
            let isEnabled = !wanted.isEmpty
            if before == wanted, isEnabled == state.direct.isEnabled { return 0 }
            let isGrowth = before?.allSatisfy { wanted[$0.key] == $0.value } ?? false
            state.direct.rules = nil
            if !isGrowth || isEnabled != state.direct.isEnabled {
                if !isGrowth { state.direct.generation &+= 1 }
                state.direct.isEnabled = isEnabled
                try objects.control.set(state.direct.control, for: 0)
            }
            let stale = before.map { $0.keys.filter { wanted[$0] == nil } } ?? objects.rules.keys.map(\.number)
            for number in stale where wanted[number] == nil { objects.rules.remove(culvert_pair(number)) }
            var placed = isGrowth ? before ?? [:] : [:]
            var isFull = false
            for (number, rule) in wanted where placed[number] == nil {
                // Those that have a place keep it; of the others the first refusal stands for all.
                if isFull, let before, before[number] == nil { continue }
                let value = culvert_rule(rule, generation: state.direct.generation)
                switch objects.rules.update(value, for: culvert_pair(number)) {
                case 0: placed[number] = rule
                case -E2BIG, -ENOMEM: isFull = true
                case let code:
                    throw KernelError(
                        .system, "writing the map rules", at: options.nodeName, code: code, remedy: "run as root")
                }
            }
            state.direct.rules = placed
            return wanted.count - placed.count
        }
    }

    /// Sets for which service addresses the kernel chooses the endpoint: those whose endpoints, of the same family, are
    /// all captured here. A service with more than `CaptureConstants.maximumServiceEndpoints`, or that finds no room, is
    /// left to the proxy. Whether the chosen endpoint may be reached directly is for the rules to say.
    public func setDirectServices(_ services: [SocketAddress: [SocketAddress]]) {
        state.withLock { state in
            let wanted = services.filter { 1...CaptureConstants.maximumServiceEndpoints ~= $0.value.count }
            let before = state.direct.services
            let old = before.map { Array($0.keys) } ?? objects.services.keys.map(\.socketAddress)
            for address in old where wanted[address] == nil { objects.services.remove(culvert_endpoint(address)) }
            var placed: [SocketAddress: [SocketAddress]] = [:]
            for (address, endpoints) in wanted {
                let key = culvert_endpoint(address)
                if before?[address] == endpoints || objects.services.update(culvert_service(endpoints), for: key) == 0 {
                    placed[address] = endpoints
                } else {
                    // What was there before is not true any more.
                    objects.services.remove(key)
                }
            }
            state.direct.services = placed
        }
    }

    /// The direct connections open now.
    public func directFlows() -> [DirectFlow] {
        let (generation, names) = state.withLock { state in
            (
                state.direct.generation,
                Dictionary(
                    state.workloads.values.map { ($0.handle.slot, $0.handle.workload) },
                    uniquingKeysWith: { first, _ in first })
            )
        }
        return objects.flows.entries.compactMap { tuple, value in
            guard value.kind == CULVERT_FLOW_DIRECT.rawValue else { return nil }
            var flow = DirectFlow(tuple, value, generation: generation)
            flow.sourceWorkload = names[value.source]
            flow.destinationWorkload = names[value.destination]
            return flow
        }
    }

    /// How many direct connections are open now. It looks at all that are followed.
    public var directFlowCount: Int { objects.flows.entries.count { $0.value.kind == CULVERT_FLOW_DIRECT.rawValue } }

    /// How many connections the programs follow now, with the proxy's legs (L1) and health probes: what the limit is for.
    var followedFlows: Int { Int(objects.flowCount.value(for: 0) ?? 0) }

    /// The connection is allowed by the rules that hold now, too.
    public func confirm(_ flow: DirectFlow) {
        let tuple = culvert_tuple(flow.source, flow.destination)
        let generation = state.withLock { $0.direct.generation }
        guard var value = objects.flows.value(for: tuple) else { return }
        value.generation = generation
        _ = objects.flows.update(value, for: tuple, existing: true)
    }

    /// Ends a connection that is no longer allowed: both ends get a reset (SOCK_DESTROY of sock_diag(7)).
    /// - Returns: false when neither end could be reached.
    @discardableResult
    public func end(_ flow: DirectFlow) throws(KernelError) -> Bool {
        let namespaces = state.withLock { state in
            [flow.sourceSlot, flow.destinationSlot].map { slot in
                state.workloads.values.first { $0.handle.slot == slot }?.namespace
            }
        }
        return try objects.destroy(flow, client: namespaces[0], server: namespaces[1])
    }

    /// Before a workload's slot is given back: no rule names it any more, and no connection.
    func endDirect(of record: Record, in state: inout State) {
        let slot = record.handle.slot
        for number in state.direct.rules.map({ Array($0.keys) }) ?? objects.rules.keys.map(\.number) {
            let pair = culvert_pair(number)
            guard pair.source == slot || pair.destination == slot else { continue }
            objects.rules.remove(pair)
            state.direct.rules?[number] = nil
        }
        for (tuple, value) in objects.flows.entries where value.source == slot || value.destination == slot {
            guard value.kind == CULVERT_FLOW_DIRECT.rawValue else {
                // The slot's next owner must not be taken for this one.
                objects.disown(tuple)
                continue
            }
            let flow = DirectFlow(tuple, value, generation: 0)
            func namespace(_ slot: UInt32) -> Descriptor? {
                if slot == record.handle.slot { return record.namespace }
                return state.workloads.values.first { $0.handle.slot == slot }?.namespace
            }
            _ = try? objects.destroy(
                flow, client: namespace(value.source), server: namespace(value.destination))
            // Where it could not be ended it goes on, and means nothing to the slot's next owner.
            objects.disown(tuple)
        }
    }
}

extension CaptureObjects {
    /// Moves the generation, so that no rule counts until new ones are set. Open connections stay as they are, the
    /// accelerated ones as well.
    func invalidateRules() throws(KernelError) -> DirectState {
        let before = control.value(for: 0) ?? culvert_control()
        var state = DirectState()
        state.generation = before.generation &+ 1
        state.isAccelerating = acceleration.isFit && before.flags & CULVERT_CONTROL_ACCELERATE.rawValue != 0
        try control.set(state.control, for: 0)
        return state
    }

    /// Makes `addresses` those of a slot.
    func setEndpoints(_ addresses: [culvert_address], of slot: UInt32, before: [culvert_address]) {
        for old in before where !addresses.contains(where: { IPAddress($0) == IPAddress(old) }) {
            // Another workload may have taken the address over by now.
            if endpoints.value(for: old) == slot { endpoints.remove(old) }
        }
        // Without room the address is reached through the proxy.
        for address in addresses { _ = endpoints.update(slot, for: address) }
    }

    /// Removes addresses that their slot's workload does not have: a daemon that died between writing them and
    /// remembering them left them for whoever has the slot next.
    func removeStrayEndpoints() {
        var owned: [UInt32: [culvert_address]] = [:]
        for cookie in pods.keys {
            if let pod = pods.value(for: cookie) { owned[pod.slot] = pod.addresses }
        }
        for address in endpoints.keys {
            guard let slot = endpoints.value(for: address) else { continue }
            let isKnown = owned[slot]?.contains { IPAddress($0) == IPAddress(address) } ?? false
            if !isKnown { endpoints.remove(address) }
        }
    }

    /// Takes from an open connection what it was allowed. Its entry stays, for nobody, until the client's socket closes:
    /// the programs alone remove entries and count them, for two who write one count lose some.
    func disown(_ tuple: culvert_tuple) {
        shortcuts.remove(tuple)
        var nobody = culvert_flow()
        nobody.source = CULVERT_SLOT_RETIRED
        nobody.destination = CULVERT_SLOT_RETIRED
        _ = flows.update(nobody, for: tuple, existing: true)
    }

    func destroy(_ flow: DirectFlow, client: Descriptor?, server: Descriptor?) throws(KernelError) -> Bool {
        var isDone = false
        for (namespace, local, remote) in [
            (client, flow.source, flow.destination), (server, flow.destination, flow.source),
        ] {
            guard let namespace else { continue }
            let code = try inNamespace(namespace.raw, place: "\(flow.source)") { () throws(KernelError) in
                mesh_socket_destroy(
                    local.ip.isIPv4, local.ip.networkBytes, local.port, remote.ip.networkBytes, remote.port)
            }
            if code == 0 { isDone = true }
            if code < 0 && code != -ENOENT {
                throw KernelError(
                    .system, "ending a direct connection", at: "\(flow.source) to \(flow.destination)", code: code,
                    remedy: "this needs CONFIG_INET_DIAG_DESTROY and CAP_NET_ADMIN; set sameNode: proxy without them")
            }
        }
        return isDone
    }
}

extension culvert_pair {
    init(_ source: UInt32, _ destination: UInt32) { self.init(source: source, destination: destination) }
    init(_ number: UInt64) { self.init(UInt32(number >> 32), UInt32(truncatingIfNeeded: number)) }

    /// Both slots in one number.
    var number: UInt64 { UInt64(source) << 32 | UInt64(destination) }
}

extension culvert_rule {
    init(_ rule: DirectRule, generation: UInt32) {
        self.init()
        self.generation = generation
        flags = rule.isDirect ? UInt16(CULVERT_RULE_DIRECT.rawValue) : 0
        if rule.isAccelerated { flags |= UInt16(CULVERT_RULE_ACCELERATED.rawValue) }
        port_count = UInt16(rule.exceptions.count)
        withUnsafeMutableBytes(of: &ports) { $0.copyBytes(from: rule.exceptions.withUnsafeBytes(Array.init)) }
    }
}

extension culvert_endpoint {
    init(_ address: SocketAddress) { self.init(address: address.ip.abi, port: address.port, padding: 0) }

    var socketAddress: SocketAddress { SocketAddress(ip: IPAddress(address), port: port) }
}

extension culvert_service {
    init(_ list: [SocketAddress]) {
        self.init()
        count = UInt32(list.count)
        withUnsafeMutableBytes(of: &endpoints) { room in
            for (index, address) in list.enumerated() {
                room.storeBytes(
                    of: culvert_endpoint(address), toByteOffset: index * MemoryLayout<culvert_endpoint>.stride,
                    as: culvert_endpoint.self)
            }
        }
    }
}
