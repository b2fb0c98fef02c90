public import MeshModel
public import MeshRuntime

/// One attempt to reach an upstream: a TCP connection or a CONNECT through a pooled session, with its deadline.
/// The completion is called exactly once, later than the call that started it, unless the dial is cancelled.
public final class UpstreamDial: StreamOwner {
    /// A stream that is ready to carry bytes, and what is known of its other end.
    public struct Connected {
        public let stream: ByteStream
        /// The identity the other end proved; nil without TLS.
        public let identity: SPIFFEID?
    }

    public struct Failure: Error {
        public let reason: Reason
        public let detail: String

        public init(reason: Reason, detail: String) {
            self.reason = reason
            self.detail = detail
        }
    }

    private let core: Core
    private var completion: ((Result<Connected, Failure>) -> Void)?
    private var socket: SocketStream?
    private var tunnel: TunnelDial?
    private lazy var timer = DialTimer(self)

    private init(core: Core, completion: @escaping (Result<Connected, Failure>) -> Void) {
        self.core = core
        self.completion = completion
    }

    /// Waits for a connecting socket that `open` makes.
    static func socket(
        on core: Core, timeout: UInt64, completion: @escaping (Result<Connected, Failure>) -> Void,
        open: () throws(SystemError) -> SocketStream
    ) -> UpstreamDial {
        let dial = UpstreamDial(core: core, completion: completion)
        do {
            let socket = try open()
            dial.socket = socket
            socket.owner = dial
            core.schedule(dial.timer, after: timeout)
        } catch {
            dial.failLater(Failure(reason: .upstreamConnectFailed, detail: error.description))
        }
        return dial
    }

    /// Waits for the answer to a CONNECT that `open` starts.
    static func tunnel(
        on core: Core, timeout: UInt64, identity: SPIFFEID, throughWaypoint: Bool,
        completion: @escaping (Result<Connected, Failure>) -> Void,
        open: (@escaping (Result<TunnelStream, TunnelDial.Failure>) -> Void) -> TunnelDial
    ) -> UpstreamDial {
        let dial = UpstreamDial(core: core, completion: completion)
        core.schedule(dial.timer, after: timeout)
        dial.tunnel = open { [unowned dial] result in
            dial.tunnel = nil
            switch result {
            case .success(let stream): dial.finish(.success(Connected(stream: stream, identity: identity)))
            case .failure(let failure):
                let reason = failure.isUnreachable && throughWaypoint ? .waypointUnavailable : failure.reason
                dial.finish(.failure(Failure(reason: reason, detail: failure.text)))
            }
        }
        return dial
    }

    /// A dial that cannot even start.
    static func failed(
        on core: Core, _ failure: Failure, completion: @escaping (Result<Connected, Failure>) -> Void
    ) -> UpstreamDial {
        let dial = UpstreamDial(core: core, completion: completion)
        dial.failLater(failure)
        return dial
    }

    /// Gives up; no call back follows.
    public func cancel() {
        completion = nil
        core.cancel(timer)
        tunnel?.cancel()
        tunnel = nil
        socket?.reset()
        socket = nil
    }

    public override func streamIsWritable(_ stream: ByteStream) {
        guard let socket = socket.take() else { return }
        finish(.success(Connected(stream: socket, identity: nil)))
    }

    public override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) {
        socket?.close()
        socket = nil
        let reason: Reason =
            switch failure {
            case .refused: .upstreamRefused
            case .timedOut: .upstreamConnectTimeout
            default: .upstreamConnectFailed
            }
        finish(.failure(Failure(reason: reason, detail: failure.text)))
    }

    fileprivate func timedOut() {
        let completion = completion.take()
        cancel()
        completion?(.failure(Failure(reason: .upstreamConnectTimeout, detail: "no answer in time")))
    }

    private func failLater(_ failure: Failure) {
        core.atEndOfTurn(DialFailure(self, failure))
    }

    fileprivate func finish(_ result: Result<Connected, Failure>) {
        core.cancel(timer)
        let completion = completion.take()
        completion?(result)
    }
}

private final class DialTimer: Timer {
    private unowned let dial: UpstreamDial

    init(_ dial: UpstreamDial) {
        self.dial = dial
        super.init()
    }

    override func fire() { dial.timedOut() }
}

private final class DialFailure: DeferredWork {
    private let dial: UpstreamDial
    private let failure: UpstreamDial.Failure

    init(_ dial: UpstreamDial, _ failure: UpstreamDial.Failure) {
        self.dial = dial
        self.failure = failure
        super.init()
    }

    override func perform() { dial.finish(.failure(failure)) }
}
