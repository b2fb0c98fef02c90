import MeshModel

/// SplitMix64: small, and the same everywhere.
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }
}

/// Literals of tests: a wrong one is a bug of the test.
func ip(_ text: String) -> IPAddress {
    guard let address = IPAddress(text) else { preconditionFailure("no address: \(text)") }
    return address
}

func socket(_ text: String) -> SocketAddress {
    guard let address = SocketAddress(text) else { preconditionFailure("no socket address: \(text)") }
    return address
}

func name(_ text: String) -> ObjectName {
    guard let name = ObjectName(text) else { preconditionFailure("no name: \(text)") }
    return name
}

func workload(
    _ text: String, _ addresses: String..., labels: [String: String] = [:], node: String = "node-1",
    transport: TransportProtocol = .tls, captured: Bool = true, ports: [String: UInt16] = [:], healthy: Bool = true
) -> Workload {
    let name = name(text)
    return Workload(
        name: name, labels: labels, addresses: addresses.map(ip), node: node, serviceAccount: name.name,
        transport: transport, netns: captured ? "/var/run/netns/\(name.name)" : nil, namedPorts: ports,
        healthy: healthy)
}
