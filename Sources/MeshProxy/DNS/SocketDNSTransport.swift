internal import MeshModel
internal import MeshRuntime

/// Asks upstreams by sockets in the workload's own network namespace, so that what holds for its traffic (routes,
/// network policy) holds for its questions too. A server on loopback is one of the node's own resolvers, and is asked
/// from the node's namespace.
final class SocketDNSTransport: DNSTransport {
    private unowned let local: LocalWorkload
    private let core: Core

    init(_ local: LocalWorkload, core: Core) {
        self.local = local
        self.core = core
    }

    /// From the kernel each time: what a core's own chance gave before must not tell what comes.
    override func nextID() -> UInt16 {
        var generator = SystemRandomNumberGenerator()
        return UInt16.random(in: .min ... .max, using: &generator)
    }

    override func exchange(
        _ query: [UInt8], with server: SocketAddress, overTCP: Bool, for lookup: DNSLookup
    ) -> DNSExchange {
        do throws(SystemError) {
            return overTCP
                ? try StreamExchange(query, try local.connectDNS(to: server), lookup)
                : try DatagramExchange(query, try local.connectDNSDatagrams(to: server), lookup, core: core)
        } catch {
            let exchange = FailedExchange(lookup)
            core.atEndOfTurn(exchange.work)
            return exchange
        }
    }
}

/// It could not even start.
private final class FailedExchange: DNSExchange {
    private final class Work: DeferredWork {
        weak var lookup: DNSLookup?

        override func perform() { lookup?.failed() }
    }

    private let failure = Work()
    var work: DeferredWork { failure }

    init(_ lookup: DNSLookup) { failure.lookup = lookup }

    override func cancel() { failure.lookup = nil }
}

/// One question by UDP, from a port of its own that is connected to the server.
private final class DatagramExchange: DNSExchange {
    private var socket: DatagramSocket?

    /// Datagrams taken in one turn: somebody who guesses at the answer must not hold up the rest.
    private static let datagramsPerTurn = 16

    init(_ query: [UInt8], _ descriptor: Int32, _ lookup: DNSLookup, core: Core) throws(SystemError) {
        super.init()
        let socket = try DatagramSocket(adopting: descriptor, on: core) { [weak lookup] socket in
            for _ in 0..<Self.datagramsPerTurn {
                guard let lookup else { return }
                switch socket.receive(into: core.scratch) {
                case .bytes(let count, _, _, _):
                    lookup.received(UnsafeRawBufferPointer(rebasing: core.scratch[..<count]))
                case .failed: lookup.failed()
                case .wouldBlock: return
                }
            }
        }
        self.socket = socket
        // A failure to send is reported by the next receive, or the answer does not come.
        _ = query.withUnsafeBytes { socket.send($0) }
    }

    override func cancel() {
        socket?.close()
        socket = nil
    }
}

/// One question by TCP, behind its length (RFC 1035 §4.2.2).
private final class StreamExchange: DNSExchange {
    private let owner: Owner

    init(_ query: [UInt8], _ stream: SocketStream, _ lookup: DNSLookup) throws(SystemError) {
        owner = Owner(query, stream, lookup)
        super.init()
        stream.owner = owner
    }

    override func cancel() { owner.end() }

    private final class Owner: StreamOwner {
        private var stream: SocketStream?
        private weak var lookup: DNSLookup?
        private var output: [UInt8]
        private var written = 0
        private var input: [UInt8] = []

        init(_ query: [UInt8], _ stream: SocketStream, _ lookup: DNSLookup) {
            self.stream = stream
            self.lookup = lookup
            output = [UInt8(query.count >> 8), UInt8(truncatingIfNeeded: query.count)] + query
        }

        func end() {
            stream?.reset()
            stream = nil
            lookup = nil
        }

        private func fail() {
            let lookup = lookup
            end()
            lookup?.failed()
        }

        override func streamIsWritable(_ stream: ByteStream) {
            while written < output.count {
                switch output.withUnsafeBytes({ stream.write(UnsafeRawBufferPointer(rebasing: $0[written...])) }) {
                case .wrote(let count): written += count
                case .wouldBlock: return
                case .failed: return fail()
                }
            }
            read(stream)
        }

        override func streamIsReadable(_ stream: ByteStream) { read(stream) }
        override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { fail() }

        private func read(_ stream: ByteStream) {
            while true {
                let result = withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { room in
                    let result = stream.read(into: room)
                    if case .bytes(let count) = result { input.append(contentsOf: room[..<count]) }
                    return result
                }
                switch result {
                case .bytes: break
                case .wouldBlock: return
                case .endOfStream, .failed: return fail()
                }
                guard input.count >= 2 else { continue }
                let length = Int(input[0]) << 8 | Int(input[1])
                guard input.count >= 2 + length else { continue }
                let lookup = lookup
                let message = input[2..<2 + length]
                end()
                message.withUnsafeBytes { lookup?.received($0) }
                return
            }
        }
    }
}

extension LocalWorkload {
    fileprivate func connectDNS(to server: SocketAddress) throws(SystemError) -> SocketStream {
        guard server.ip.isLoopback else { return try connect(to: server) }
        return try SocketStream.connect(to: RawSocketAddress(server), on: hub.core)
    }

    fileprivate func connectDNSDatagrams(to server: SocketAddress) throws(SystemError) -> Int32 {
        let target = RawSocketAddress(server)
        guard let namespace, !server.ip.isLoopback else { return try Socket.connectDatagrams(to: target) }
        return try namespace.run(returningTo: hub.home) { () throws(SystemError) in
            try Socket.connectDatagrams(to: target, mark: hub.filterRules?.mark)
        }
    }
}
