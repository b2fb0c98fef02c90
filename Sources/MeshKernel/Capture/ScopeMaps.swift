internal import CMeshABI
internal import Glibc
internal import MeshModel

/// What operators keep out of capture, as the programs look it up (BPF/excluded.h).
///
/// Invariants:
/// - Doubt means captured: an entry that finds no room in a full map costs an exclusion, never capture.
/// - While one scope replaces another, every connection is decided as either of them says.
/// - Where a slot has any entry of a direction it has that for port 0, which is written first and removed last.
struct ScopeMaps: Sendable {
    let ports: BPFMap<culvert_port, UInt32>
    let ranges: BPFMap<culvert_range, UInt32>

    fileprivate enum Direction: UInt16 { case outbound, inbound }
    fileprivate enum Scope: UInt32 { case open, captured, excluded }

    /// An entry of either map, as a value that can be compared.
    fileprivate enum Entry: Hashable {
        case port(UInt16, Direction)
        case range(CIDR)
    }

    func set(_ scope: CaptureScope, of slot: UInt32, place: String) throws(KernelError) -> Int {
        let before = self.entries(of: slot)
        let wanted = Self.entries(of: scope)
        var unplaced = 0
        var keepsAll: Set<Direction> = []
        for direction in [Direction.outbound, .inbound] where wanted[.port(0, direction)] != nil {
            guard before[.port(0, direction)] == nil else { continue }
            if try !write(.captured, .port(0, direction), slot, place) {
                unplaced += 1
                keepsAll.insert(direction)
            }
        }
        for (entry, value) in wanted where !entry.isRest && !keepsAll.contains(entry.direction) {
            if before[entry] != value, try !write(value, entry, slot, place) {
                unplaced += 1
                // Without all that it includes, a list of the only things to capture would let some of them out.
                if value == .captured { keepsAll.insert(entry.direction) }
            }
        }
        for direction in [Direction.outbound, .inbound] {
            let rest = keepsAll.contains(direction) ? .captured : wanted[.port(0, direction)] ?? .captured
            guard wanted[.port(0, direction)] != nil || before[.port(0, direction)] != nil else { continue }
            _ = try write(rest, .port(0, direction), slot, place)
        }
        for entry in before.keys where wanted[entry] == nil && !entry.isRest { remove(entry, slot) }
        for entry in before.keys where wanted[entry] == nil && entry.isRest { remove(entry, slot) }
        return unplaced
    }

    /// Before the slot can stand for another workload.
    func remove(_ slot: UInt32) {
        let entries = self.entries(of: slot)
        for entry in entries.keys where !entry.isRest { remove(entry, slot) }
        for entry in entries.keys where entry.isRest { remove(entry, slot) }
    }

    /// Removes what stands for no workload.
    func removeAll(besides slots: Set<UInt32>) {
        for slot in Set(ports.keys.map(\.slot)).subtracting(slots) { remove(slot) }
    }

    private static func entries(of scope: CaptureScope) -> [Entry: Scope] {
        var entries: [Entry: Scope] = [:]
        if !scope.isWholeOutbound {
            entries[.port(0, .outbound)] = scope.includedOutbound == nil ? .captured : .excluded
            for port in scope.includedOutboundPorts { entries[.port(port, .outbound)] = .captured }
            for port in scope.excludedOutboundPorts { entries[.port(port, .outbound)] = .excluded }
            let blocks = scope.outboundBlocks
            for (block, isCaptured) in blocks { entries[.range(block)] = isCaptured ? .captured : .excluded }
            // To the trie IPv4 is a part of IPv6; to whoever writes ::/0 it is not.
            if blocks.keys.contains(where: { $0.holdsMappedAddresses }), entries[.range(.everyIPv4)] == nil {
                entries[.range(.everyIPv4)] = .open
            }
        }
        if !scope.isWholeInbound {
            entries[.port(0, .inbound)] = scope.includedInboundPorts == nil ? .captured : .excluded
            for port in scope.includedInboundPorts ?? [] { entries[.port(port, .inbound)] = .captured }
            for port in scope.includedInboundPorts == nil ? scope.excludedInboundPorts : [] {
                entries[.port(port, .inbound)] = .excluded
            }
        }
        return entries
    }

    /// What the maps hold of a slot.
    private func entries(of slot: UInt32) -> [Entry: Scope] {
        let directions = [Direction.outbound, .inbound].filter {
            ports.value(for: culvert_port(slot, 0, $0.rawValue)) != nil
        }
        guard !directions.isEmpty else { return [:] }
        var entries: [Entry: Scope] = [:]
        for key in ports.keys where key.slot == slot {
            guard let direction = Direction(rawValue: key.direction), let value = ports.value(for: key) else {
                continue
            }
            entries[.port(key.port, direction)] = Scope(rawValue: value)
        }
        for key in ranges.keys where key.slot == slot {
            guard let block = CIDR(key), let value = ranges.value(for: key) else { continue }
            entries[.range(block)] = Scope(rawValue: value)
        }
        return entries
    }

    /// - Returns: false when there is no room.
    private func write(
        _ value: Scope, _ entry: Entry, _ slot: UInt32, _ place: String
    ) throws(KernelError) -> Bool {
        let code =
            switch entry {
            case .port(let port, let direction):
                ports.update(
                    value.rawValue, for: culvert_port(slot, port, direction.rawValue))
            case .range(let block): ranges.update(value.rawValue, for: culvert_range(block, slot: slot))
            }
        if code == 0 { return true }
        // A trie says ENOSPC where a hash says E2BIG.
        guard code == -E2BIG || code == -ENOSPC || code == -ENOMEM else {
            throw KernelError(
                .system, "writing what is kept out of capture", at: place, code: code, remedy: "run as root")
        }
        return false
    }

    private func remove(_ entry: Entry, _ slot: UInt32) {
        switch entry {
        case .port(let port, let direction):
            ports.remove(culvert_port(slot, port, direction.rawValue))
        case .range(let block): ranges.remove(culvert_range(block, slot: slot))
        }
    }
}

extension ScopeMaps.Entry {
    fileprivate var direction: ScopeMaps.Direction {
        if case .port(_, let direction) = self { direction } else { .outbound }
    }

    /// It holds for whatever no other entry names.
    fileprivate var isRest: Bool {
        if case .port(0, _) = self { true } else { false }
    }
}

extension CIDR {
    fileprivate static var everyIPv4: CIDR {
        guard let block = CIDR(IPAddress(v4: 0), prefixLength: 0) else { preconditionFailure("0.0.0.0/0 is a block") }
        return block
    }

    /// Among its addresses, as 16 bytes, are those of IPv4.
    fileprivate var holdsMappedAddresses: Bool {
        guard !network.isIPv4, prefixLength < 96 else { return false }
        let prefix = prefixLength <= 80 ? 0 : UInt64(0xffff) << UInt64(96 - prefixLength) & 0xffff
        return network.high == 0 && network.low == prefix << 32
    }

    fileprivate init?(_ key: culvert_range) {
        let address = IPAddress(key.address)
        let bits = Int(key.prefix_bits) - 32
        self.init(address, prefixLength: address.isIPv4 ? bits - 96 : bits)
    }
}

extension culvert_range {
    fileprivate init(_ block: CIDR, slot: UInt32) {
        self.init(
            prefix_bits: UInt32(32 + (block.network.isIPv4 ? 96 : 0) + block.prefixLength), slot: slot,
            address: block.network.abi)
    }
}

extension culvert_port {
    init(_ slot: UInt32, _ port: UInt16, _ direction: UInt16) {
        self.init(slot: slot, port: port, direction: direction)
    }
}
