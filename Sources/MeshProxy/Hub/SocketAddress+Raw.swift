public import MeshModel
public import MeshRuntime

extension RawSocketAddress {
    /// The runtime's form of a model address.
    public init(_ address: SocketAddress) {
        self.init(high: address.ip.high, low: address.ip.low, isIPv4: address.ip.isIPv4, port: address.port)
    }
}

extension SocketAddress {
    /// The model's form of a runtime address.
    public init(_ raw: RawSocketAddress) {
        self.init(
            ip: raw.isIPv4
                ? IPAddress(v4: UInt32(truncatingIfNeeded: raw.low)) : IPAddress(high: raw.high, low: raw.low),
            port: raw.port)
    }
}
