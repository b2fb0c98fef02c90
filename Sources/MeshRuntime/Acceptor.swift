import CMeshSystem

/// A listening socket on a core. It stays open until `close` or until nobody holds it.
///
/// Level-triggered, unlike streams: a burst longer than one turn's share is simply reported again. When descriptors or
/// memory run out the kernel keeps the connection in the backlog and would report it without end, so the listener
/// rests for a moment instead; clients wait in the backlog, nobody is turned away.
public final class Acceptor {
    /// Connections taken in one turn, so that a burst of new ones does not starve those that are there.
    public static let connectionsPerTurn = 64
    /// How long a listener rests when the process is out of descriptors or memory.
    public static let restNanoseconds: UInt64 = 100_000_000

    /// Connections handed out.
    public private(set) var accepted: UInt64 = 0
    /// Connections that were gone before they were taken.
    public private(set) var aborted: UInt64 = 0
    /// How often the listener had to rest.
    public private(set) var rests: UInt64 = 0
    public let localAddress: RawSocketAddress

    private let core: Core
    private let isTranslated: Bool
    private var listener: Int32
    private var token: UInt64 = 0
    private let accept: (SocketStream) -> Void
    private lazy var wake = WakeTimer(self)

    /// Takes over a listening socket, and closes it when this fails.
    /// - Parameters:
    ///   - isTranslated: the packet filter brings the connections here; their streams' `localAddress` is where they
    ///     were going before (SO_ORIGINAL_DST).
    ///   - accept: called with each connection; it must keep the stream.
    public init(
        listener: Int32, on core: Core, isTranslated: Bool = false, accept: @escaping (SocketStream) -> Void
    ) throws(SystemError) {
        self.core = core
        self.isTranslated = isTranslated
        self.listener = listener
        self.accept = accept
        var address = mesh_address()
        localAddress = mesh_socket_local(listener, &address) == 0 ? RawSocketAddress(address) : .none
        switch core.register(self, listener: listener) {
        case .success(let token): self.token = token
        case .failure(let error):
            mesh_close(listener)
            self.listener = -1
            throw error
        }
    }

    deinit { close() }

    /// Stops listening. Connections handed out stay.
    public func close() {
        guard listener >= 0 else { return }
        core.closeListener(listener, token: token)
        listener = -1
    }

    /// A descriptor of the same listener for somebody who goes on with it; nil when it is closed.
    public func duplicate() throws(SystemError) -> Int32? {
        listener >= 0 ? try Socket.duplicate(listener) : nil
    }

    func becameReady() {
        for _ in 0..<Self.connectionsPerTurn {
            // `accept` may have closed us.
            guard listener >= 0 else { return }
            var peer = mesh_address()
            let result = mesh_socket_accept(listener, &peer)
            if result >= 0 {
                accepted += 1
                let destination = isTranslated ? try? Socket.originalDestination(of: result) : nil
                accept(SocketStream(accepted: result, from: RawSocketAddress(peer), to: destination, on: core))
                continue
            }
            switch -result {
            case Errno.again: return
            case Errno.tooManyFiles, Errno.fileTableFull, Errno.outOfMemory, Errno.noBufferSpace:
                rest()
                return
            // Linux hands out errors that the new connection met already (accept(2)): they end that one only.
            default: aborted += 1
            }
        }
    }

    private func rest() {
        rests += 1
        core.setListener(listener, token: token, isEnabled: false)
        core.schedule(wake, after: Self.restNanoseconds)
    }

    fileprivate func resume() {
        if listener >= 0 { core.setListener(listener, token: token, isEnabled: true) }
    }
}

private final class WakeTimer: Timer {
    private weak var acceptor: Acceptor?

    init(_ acceptor: Acceptor) { self.acceptor = acceptor }

    override func fire() { acceptor?.resume() }
}
