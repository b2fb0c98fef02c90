internal import MeshModel
internal import MeshRuntime
internal import MeshWire

/// Somebody who asked: a datagram's sender or a stream.
class DNSAsker {
    /// Whom the question was meant for; nil: whoever the proxy asks by default.
    let server: SocketAddress?
    /// The asker's protocol, as the metrics name it.
    let isStream: Bool

    init(server: SocketAddress?, isStream: Bool) {
        self.server = server
        self.isStream = isStream
    }

    /// Gives the answer, once.
    func answer(_ bytes: [UInt8]) { fatalError("abstract") }
}

/// A client that waits, with its question.
struct DNSWaiter {
    let asker: DNSAsker
    let message: DNSMessage
    let original: [UInt8]
    /// The mesh knows the name, though not the record asked for.
    let nameExists: Bool

    /// The largest answer the asker takes.
    var limit: Int { asker.isStream ? 65535 : message.answerLimit }
}

/// One question that upstreams are asked: which one, how often, how long.
///
/// Upstreams are asked one after the other, each `dnsAttemptsPerServer` times, every try with a new id and from a new
/// port. What a try brings is one of these:
/// - an answer: the end. A truncated one: the same upstream by TCP;
/// - a failure of the server (SERVFAIL, REFUSED, …): the next upstream, and if there is none, that is the answer;
/// - a message that answers something else: ignored, but after `dnsMismatches` the next try goes by TCP;
/// - nothing in time, or an error of the socket: the next try.
/// `ended` is told exactly once, never inside `start`.
final class DNSLookup {
    enum Outcome {
        case answered(DNSStoredResponse)
        /// What came back for a message that was passed on as it is.
        case passed([UInt8])
        /// No upstream answered.
        case failed
    }

    let key: DNSQuestionKey?
    var waiters: [DNSWaiter]
    let startedAt: UInt64
    private(set) var attempts = 0

    private let core: Core
    private let transport: DNSTransport
    private let servers: [SocketAddress]
    private let limits: Limits
    private var query: [UInt8]
    private var sent: DNSMessage
    private var ended: ((DNSLookup, Outcome) -> Void)?
    private var staleDue: ((DNSLookup) -> Void)?
    private var exchange: DNSExchange?
    private var isOverTCP: Bool
    private var mismatches = 0
    private var serverFailure: DNSStoredResponse?
    private lazy var attemptTimer = LookupTimer(self) { $0.attemptFailed() }
    private lazy var questionTimer = LookupTimer(self) { $0.outOfTime() }
    private lazy var staleTimer = LookupTimer(self) { lookup in lookup.staleDue?(lookup) }

    /// - Parameters:
    ///   - key: what equal questions share; nil for messages that are passed on as they are and asked once each.
    ///   - query: what is sent; its id is replaced.
    ///   - servers: at least one.
    init(
        _ waiter: DNSWaiter, key: DNSQuestionKey?, query: [UInt8], servers: [SocketAddress], overTCP: Bool,
        transport: DNSTransport, core: Core, limits: Limits
    ) throws(DNSParseError) {
        self.key = key
        waiters = [waiter]
        self.query = query
        self.servers = servers
        self.transport = transport
        self.core = core
        self.limits = limits
        isOverTCP = overTCP
        startedAt = core.now
        sent = try query.parsed()
    }

    /// Asks.
    /// - Parameter staleDue: told once after `dnsStaleAfterNanoseconds`: who can be given a stale answer gets it.
    func start(staleDue: ((DNSLookup) -> Void)?, ended: @escaping (DNSLookup, Outcome) -> Void) {
        self.ended = ended
        self.staleDue = staleDue
        core.schedule(questionTimer, after: limits.dnsQuestionNanoseconds)
        if staleDue != nil { core.schedule(staleTimer, after: limits.dnsStaleAfterNanoseconds) }
        attempt()
    }

    /// Gives up without a word to anybody.
    func cancel() {
        ended = nil
        staleDue = nil
        stop()
        waiters.removeAll()
    }

    private var server: SocketAddress { servers[attempts / limits.dnsAttemptsPerServer] }

    private func attempt() {
        let id = transport.nextID()
        query[0] = UInt8(id >> 8)
        query[1] = UInt8(truncatingIfNeeded: id)
        sent.header.id = id
        core.schedule(attemptTimer, after: limits.dnsAttemptNanoseconds)
        exchange = transport.exchange(query, with: server, overTCP: isOverTCP, for: self)
    }

    /// A message came from the upstream that is asked.
    func received(_ bytes: UnsafeRawBufferPointer) {
        guard let exchange else { return }
        if key == nil {
            guard let header = DNSHeader(bytes), header.isResponse, header.id == sent.header.id,
                header.opcode == sent.header.opcode
            else { return mismatched() }
            return finish(.passed([UInt8](bytes)))
        }
        guard let response = try? DNSStoredResponse(bytes), response.answers(sent) else { return mismatched() }
        if response.message.header.isTruncated, !isOverTCP {
            exchange.cancel()
            isOverTCP = true
            return attempt()
        }
        if !response.message.isResolved {
            serverFailure = response
            return nextServer()
        }
        finish(.answered(response))
    }

    private func mismatched() {
        mismatches += 1
        if isOverTCP {
            attemptFailed()
        } else if mismatches >= limits.dnsMismatches {
            isOverTCP = true
            attemptFailed()
        }
    }

    /// The upstream refused the question, or could not be reached.
    func failed() {
        guard exchange != nil else { return }
        attemptFailed()
    }

    private func attemptFailed() {
        attempts += 1
        attemptAgain()
    }

    private func nextServer() {
        attempts = (attempts / limits.dnsAttemptsPerServer + 1) * limits.dnsAttemptsPerServer
        attemptAgain()
    }

    private func attemptAgain() {
        exchange?.cancel()
        exchange = nil
        guard attempts < servers.count * limits.dnsAttemptsPerServer else { return outOfTime() }
        attempt()
    }

    private func outOfTime() {
        finish(serverFailure.map { .answered($0) } ?? .failed)
    }

    private func finish(_ outcome: Outcome) {
        stop()
        staleDue = nil
        let ended = ended.take()
        ended?(self, outcome)
    }

    private func stop() {
        core.cancel(attemptTimer)
        core.cancel(questionTimer)
        core.cancel(staleTimer)
        exchange?.cancel()
        exchange = nil
    }
}

private final class LookupTimer: Timer {
    private weak var lookup: DNSLookup?
    private let body: (DNSLookup) -> Void

    init(_ lookup: DNSLookup, _ body: @escaping (DNSLookup) -> Void) {
        self.lookup = lookup
        self.body = body
    }

    override func fire() { if let lookup { body(lookup) } }
}

extension [UInt8] {
    /// The message these bytes are.
    func parsed() throws(DNSParseError) -> DNSMessage {
        let result: Result<DNSMessage, DNSParseError> = withUnsafeBytes { bytes in
            do throws(DNSParseError) { return .success(try DNSMessage(parsing: bytes)) } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }
}
