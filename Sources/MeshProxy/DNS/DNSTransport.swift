internal import MeshModel

/// How questions reach upstreams; the simulator has one of its own.
class DNSTransport {
    /// A message id that nobody can guess.
    func nextID() -> UInt16 { fatalError("abstract") }

    /// Sends `query` to `server`. What comes back goes to `lookup` until the exchange is cancelled, never before this
    /// returns.
    func exchange(
        _ query: [UInt8], with server: SocketAddress, overTCP: Bool, for lookup: DNSLookup
    ) -> DNSExchange { fatalError("abstract") }
}

/// One question on its way to one upstream.
class DNSExchange {
    /// Ends it; nothing is told any more.
    func cancel() { fatalError("abstract") }
}
