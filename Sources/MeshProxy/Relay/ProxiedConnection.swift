public import MeshModel
public import MeshRuntime

/// One connection that the proxy carries: a downstream stream that somebody opened, an upstream stream that we opened
/// for it, and the relay between them.
///
/// Invariants:
/// - bytes are read from a stream only when the other one can take them, or a single block can hold them;
/// - an end of stream is passed on after the last byte, and the other direction goes on (half-close);
/// - an abort of one side is passed on to the other as an abort, never as a clean end;
/// - `finish` runs exactly once, writes the record and forgets the connection.
///
/// Subclasses decide where the upstream comes from and complete their `dial` with `dialled`.
open class ProxiedConnection: StreamOwner {
    public unowned let hub: ProxyCore
    public final let downstream: ByteStream
    public final private(set) var upstream: ByteStream?
    public final var record: ConnectionRecord
    final private(set) var isFinished = false

    private var forward = Flow()
    private var backward = Flow()
    private var isRelaying = false
    private lazy var continuation = RelayContinuation()

    public init(hub: ProxyCore, downstream: ByteStream, record: ConnectionRecord) {
        self.hub = hub
        self.downstream = downstream
        self.record = record
        super.init()
        downstream.owner = self
        hub.connections.add(self)
    }

    // MARK: For subclasses

    /// The attempt to reach the upstream; cancelled when the connection ends before.
    public final var dial: UpstreamDial?

    /// Completes `dial`: relays, or ends the connection with the dial's reason.
    public final func dialled(_ result: Result<UpstreamDial.Connected, UpstreamDial.Failure>) {
        dial = nil
        guard !isFinished else {
            if case .success(let connected) = result { connected.stream.reset() }
            return
        }
        switch result {
        case .failure(let failure): terminate(failure.reason, detail: failure.detail)
        case .success(let connected):
            if let identity = connected.identity {
                record.destinationIdentity = identity
                record.isMutualTLS = true
            }
            relay(to: connected.stream)
        }
    }

    /// The upstream is there and bytes are about to flow.
    open func willRelay() {}

    /// A live decision has to be made again, because policy or workloads changed: the reason to close, or nil.
    open func decideAgain(_ snapshot: MeshSnapshot) -> (reason: Reason, policy: ObjectName?)? { nil }

    /// What a downstream gets that has no upstream yet: by default an abort the client can see.
    open func refuseDownstream(_ reason: Reason) { downstream.reset() }

    private func relay(to stream: ByteStream) {
        upstream = stream
        stream.owner = self
        isRelaying = true
        record.establishedAt = hub.core.now
        hub.opened(record)
        willRelay()
        pumpBoth()
    }

    // MARK: Relay

    open override func streamIsReadable(_ stream: ByteStream) {
        guard isRelaying else { return }
        if stream === downstream { pumpForward() } else { pumpBackward() }
    }

    open override func streamIsWritable(_ stream: ByteStream) {
        guard isRelaying else { return }
        if stream === downstream { pumpBackward() } else { pumpForward() }
    }

    open override func streamFailed(_ stream: ByteStream, _ failure: StreamFailure) {
        fail(stream === downstream ? .downstreamReset : .upstreamReset, failure)
    }

    fileprivate func pumpBoth() {
        pumpForward()
        if !isFinished { pumpBackward() }
    }

    private func pumpForward() {
        guard let upstream, !isFinished else { return }
        advance(forward.pump(from: downstream, to: upstream, on: hub.core), forward: true)
    }

    private func pumpBackward() {
        guard let upstream, !isFinished else { return }
        advance(backward.pump(from: upstream, to: downstream, on: hub.core), forward: false)
    }

    private func advance(_ progress: Flow.Progress, forward isForward: Bool) {
        switch progress {
        case .waiting: break
        case .yielded:
            continuation.connection = self
            hub.core.atEndOfTurn(continuation)
        case .finished:
            if forward.sinkFinished && backward.sinkFinished { finishCleanly() }
        case .sourceFailed(let failure):
            fail(isForward ? .downstreamReset : .upstreamReset, failure)
        case .sinkFailed(let failure):
            // What the broken side had sent before still belongs to the other one.
            if isForward, let upstream {
                _ = backward.pump(from: upstream, to: downstream, on: hub.core)
            } else if let upstream {
                _ = forward.pump(from: downstream, to: upstream, on: hub.core)
            }
            fail(isForward ? .upstreamReset : .downstreamReset, failure)
        }
    }

    // MARK: End

    private func finishCleanly() {
        downstream.close()
        upstream?.close()
        finish(.none)
    }

    private func fail(_ reason: Reason, _ failure: StreamFailure) {
        end(reason, policy: nil, detail: failure.text) { $0.reset() }
    }

    /// Ends the connection for `reason`, visibly to both sides. Safe to call at any time, also twice.
    public final func terminate(_ reason: Reason, policy: ObjectName? = nil, detail: String? = nil) {
        end(reason, policy: policy, detail: detail) { $0.cancel() }
    }

    private func end(_ reason: Reason, policy: ObjectName?, detail: String?, abort: (ByteStream) -> Void) {
        guard !isFinished else { return }
        if let policy { record.policy = policy }
        if let detail { record.error = detail }
        if isRelaying { abort(downstream) } else { refuseDownstream(reason) }
        if let upstream { abort(upstream) }
        finish(reason)
    }

    private func finish(_ reason: Reason) {
        isFinished = true
        dial?.cancel()
        dial = nil
        record.bytesFromDownstream = forward.bytes
        record.bytesFromUpstream = backward.bytes
        forward.release(to: hub.core)
        backward.release(to: hub.core)
        record.reason = reason
        hub.connections.remove(self)
        hub.closed(record, wasOpen: isRelaying)
    }

    /// Bytes that wait in the proxy for a slow side.
    public final var bufferedBytes: Int {
        (forward.pendingEnd - forward.pendingStart) + (backward.pendingEnd - backward.pendingStart)
    }
    public final var bytesForward: UInt64 { forward.bytes }
    public final var bytesBackward: UInt64 { backward.bytes }

    // MARK: Place in the hub's list of connections (intrusive, so that opening one allocates nothing more)

    final var previousConnection: ProxiedConnection?
    final var nextConnection: ProxiedConnection?
}

/// Goes on with a relay that used up its share of a turn.
private final class RelayContinuation: DeferredWork {
    /// Set while queued, so that the connection outlives its place in the queue.
    var connection: ProxiedConnection?

    override func perform() {
        let connection = connection.take()
        connection?.pumpBoth()
    }
}

/// The open connections of a core, in no order.
public final class ConnectionList {
    private var first: ProxiedConnection?
    public private(set) var count = 0

    func add(_ connection: ProxiedConnection) {
        connection.nextConnection = first
        first?.previousConnection = connection
        first = connection
        count += 1
    }

    func remove(_ connection: ProxiedConnection) {
        if let previous = connection.previousConnection {
            previous.nextConnection = connection.nextConnection
        } else if first === connection {
            first = connection.nextConnection
        }
        connection.nextConnection?.previousConnection = connection.previousConnection
        connection.previousConnection = nil
        connection.nextConnection = nil
        count -= 1
    }

    /// Calls `body` for each; the body may end the connection it is given.
    func forEach(_ body: (ProxiedConnection) -> Void) {
        var current = first
        while let connection = current {
            current = connection.nextConnection
            body(connection)
        }
    }
}
