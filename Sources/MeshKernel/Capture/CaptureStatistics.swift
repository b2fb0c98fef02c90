internal import CMeshABI
public import MeshModel

/// What the capture programs count, in the order of the ABI.
public enum CaptureEvent: UInt32, CaseIterable, Sendable {
    case outboundMarked, outboundSteered, inboundSteered, tunnelSteered, localPassed
    case exemptProxy, exemptLocal, deviceCleared
    case refusedNoListener, refusedNoAddress, refusedLinkLocal, refusedDevice, refusedMark
    case droppedNoListener, droppedAssign
    case direct, directPassed, directNoRule, directStale, directFull, directDevice, directLost, recordLost
    case exemptExcluded, excludedPassed
    case accelerated, accelerationRefused, wireFirst, wireBulk, wireChanged
    case probe, probePassed, probeLost
    case refusedLeg
    case dnsCaptured, dnsRefused, dnsPassed
    case refusedUnnoted
    case directMoved
    case connectionForgotten

    /// The word in metrics.
    public var word: String {
        switch self {
        case .outboundMarked: "outbound_marked"
        case .outboundSteered: "outbound_steered"
        case .inboundSteered: "inbound_steered"
        case .tunnelSteered: "tunnel_steered"
        case .localPassed: "local_passed"
        case .exemptProxy: "exempt_proxy"
        case .exemptLocal: "exempt_local"
        case .deviceCleared: "device_cleared"
        case .refusedNoListener: "connect_refused_no_listener"
        case .refusedNoAddress: "connect_refused_no_address"
        case .refusedLinkLocal: "connect_refused_link_local"
        case .refusedDevice: "connect_refused_device"
        case .refusedMark: "connect_refused_mark"
        case .droppedNoListener: "syn_dropped_no_listener"
        case .droppedAssign: "syn_dropped_assign"
        case .direct: "direct"
        case .directPassed: "direct_passed"
        case .directNoRule: "direct_no_rule"
        case .directStale: "direct_stale"
        case .directFull: "direct_full"
        case .directDevice: "direct_device"
        case .directLost: "direct_lost"
        case .recordLost: "record_lost"
        case .exemptExcluded: "exempt_excluded"
        case .excludedPassed: "excluded_passed"
        case .accelerated: "accelerated"
        case .accelerationRefused: "acceleration_refused"
        case .wireFirst: "wire_first"
        case .wireBulk: "wire_bulk"
        case .wireChanged: "wire_changed"
        case .probe: "probe"
        case .probePassed: "probe_passed"
        case .probeLost: "probe_lost"
        case .refusedLeg: "connect_refused_leg"
        case .dnsCaptured: "dns_captured"
        case .dnsRefused: "dns_refused_no_listener"
        case .dnsPassed: "dns_passed"
        case .refusedUnnoted: "connect_refused_unnoted"
        case .directMoved: "direct_moved"
        case .connectionForgotten: "connection_forgotten"
        }
    }

    /// The mesh-wide reason of a refusal; nil for what is no refusal or concerns the socket alone.
    public var reason: Reason? {
        switch self {
        case .refusedNoListener, .droppedNoListener, .droppedAssign, .dnsRefused: .proxyUnavailable
        default: nil
        }
    }
}

/// Counters since the maps were made, summed over the CPUs: of one workload, or of all with those that are gone. Rules
/// of the packet filter count only some of the events.
public struct CaptureStatistics: Hashable, Sendable {
    /// How many counters the programs keep.
    static let abiCount = Int(CULVERT_EVENTS.rawValue)

    /// What is counted at all.
    public let counted: Set<CaptureEvent>
    private var counts = [UInt64](repeating: 0, count: CaptureEvent.allCases.count)

    /// At zero.
    init(counted: some Sequence<CaptureEvent> = CaptureEvent.allCases) { self.counted = Set(counted) }

    init(counted: some Sequence<CaptureEvent>, _ count: (CaptureEvent) -> UInt64) {
        self.counted = Set(counted)
        for event in counted { counts[Int(event.rawValue)] = count(event) }
    }

    public subscript(event: CaptureEvent) -> UInt64 { counts[Int(event.rawValue)] }

    /// The sums of what either counted.
    static func + (left: Self, right: Self) -> Self {
        Self(counted: left.counted.union(right.counted)) { left[$0] &+ right[$0] }
    }

    /// Adds the counters of a slot, in the order of the ABI.
    mutating func add(_ counters: [UInt64]) {
        for index in counts.indices { counts[index] &+= counters[index] }
    }
}
