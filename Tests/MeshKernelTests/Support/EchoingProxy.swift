import Glibc
import MeshKernel
import MeshModel
import MeshRuntime
import Synchronization

/// A proxy that accepts whatever is steered to it and sends every byte back, on a thread of its own.
final class EchoingProxy {
    private let proxy: Proxy
    private let echo = Echo()
    private let core: CoreHandle
    private let thread: CoreThread

    init(in namespace: NetworkNamespace) throws {
        proxy = try Proxy(in: namespace)
        let core = try Core(index: 0)
        for listener in proxy.outbound + proxy.inbound { try echo.listen(dup(listener), on: core) }
        self.core = core.handle
        thread = try core.start()
    }

    /// Stops and closes everything.
    func close() {
        core.post { [echo] _ in echo.close() }
        core.stop()
        thread.join()
        proxy.close()
    }

    var listeners: CaptureListeners { proxy.listeners }

    /// How many connections came, by the destination their clients had asked for: `ADDRESS PORT`.
    var destinations: [String: Int] { echo.destinations.withLock { $0 } }
}

/// Everything but `destinations` belongs to the core's thread once that runs.
private final class Echo: StreamOwner, @unchecked Sendable {
    let destinations = Mutex<[String: Int]>([:])
    private var acceptors: [Acceptor] = []
    private var open: [ObjectIdentifier: ByteStream] = [:]
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)

    deinit { buffer.deallocate() }

    func listen(_ listener: Int32, on core: Core) throws(SystemError) {
        acceptors.append(
            try Acceptor(listener: listener, on: core) { [unowned self] stream in
                let name = stream.localAddress
                let asked = name.isIPv4 ? IPAddress(v4: UInt32(name.low)) : IPAddress(high: name.high, low: name.low)
                destinations.withLock { $0["\(asked) \(name.port)", default: 0] += 1 }
                open[ObjectIdentifier(stream)] = stream
                stream.owner = self
                // What came before now is news to nobody.
                streamIsReadable(stream)
            })
    }

    func close() {
        for acceptor in acceptors { acceptor.close() }
        for stream in open.values { stream.reset() }
        (acceptors, open) = ([], [:])
    }

    override func streamIsReadable(_ stream: ByteStream) {
        while true {
            switch stream.read(into: buffer) {
            case .bytes(let count):
                // Clients of these tests have one short message in flight: the send buffer always takes it.
                let taken = stream.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                if taken != .wrote(count) { return end(stream) { $0.reset() } }
            case .wouldBlock: return
            case .endOfStream: return end(stream) { $0.close() }
            case .failed: return end(stream) { $0.reset() }
            }
        }
    }

    override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) { end(stream) { $0.reset() } }

    private func end(_ stream: ByteStream, _ how: (ByteStream) -> Void) {
        open[ObjectIdentifier(stream)] = nil
        how(stream)
    }
}
