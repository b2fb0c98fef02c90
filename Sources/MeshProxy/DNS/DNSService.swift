internal import MeshModel
internal import MeshRuntime
internal import MeshWire

/// The DNS of one workload: names that the mesh knows are answered here; the rest is asked of the server that the
/// application meant, and kept.
final class DNSService {
    private let core: Core
    private let transport: DNSTransport
    private let counters: DNSCounters
    /// What decisions are made on: the snapshot and the workload as they are now.
    private let current: () -> (MeshSnapshot, Workload)
    /// Whom to ask where the question does not say.
    private let defaultServers: () -> [SocketAddress]
    private var cache = DNSCache()
    private var lookups: [DNSQuestionKey: DNSLookup] = [:]
    private var opaque: [ObjectIdentifier: DNSLookup] = [:]
    private var writer = DNSWriter()
    private var output: [UInt8] = []

    init(
        core: Core, transport: DNSTransport, counters: DNSCounters, defaultServers: @escaping () -> [SocketAddress],
        current: @escaping () -> (MeshSnapshot, Workload)
    ) {
        self.core = core
        self.transport = transport
        self.counters = counters
        self.defaultServers = defaultServers
        self.current = current
    }

    /// Questions that upstreams are being asked.
    var inFlight: Int { lookups.count + opaque.count }
    var cachedAnswers: Int { cache.count }

    /// Stops; who waits gets no answer.
    func close() {
        for lookup in lookups.values { lookup.cancel() }
        for lookup in opaque.values { lookup.cancel() }
        lookups.removeAll()
        opaque.removeAll()
    }

    // MARK: Questions

    /// Takes a message of a client, which is answered now or later.
    /// - Returns: false when it is nothing that could be answered.
    @discardableResult
    func ask(_ original: UnsafeRawBufferPointer, _ asker: DNSAsker) -> Bool {
        let message: DNSMessage
        do throws(DNSParseError) { message = try DNSMessage(parsing: original) } catch {
            counters.asked(nil, isStream: asker.isStream)
            guard let answer = DNSWriter.bareResponse(to: original, .formatError) else { return false }
            counters.answered(.refused)
            asker.answer(answer)
            return true
        }
        if message.header.isResponse { return false }
        counters.asked(message.question.type, isStream: asker.isStream)
        decide(message, original, asker)
        return true
    }

    private func decide(_ message: DNSMessage, _ original: UnsafeRawBufferPointer, _ asker: DNSAsker) {
        if let edns = message.edns, edns.version > 0 { return refuse(message, original, .badVersion, asker) }
        let (snapshot, workload) = current()
        let waiter = { nameExists in
            DNSWaiter(asker: asker, message: message, original: [UInt8](original), nameExists: nameExists)
        }
        guard message.isPlainQuestion else { return pass(waiter(false), limits: snapshot.settings.limits) }
        switch message.question.type {
        // A zone is many messages on one connection; who transfers zones has no use for a resolver.
        case .axfr, .ixfr: return refuse(message, original, .notImplemented, asker)
        default: break
        }
        let known = message.question.name.text.flatMap { snapshot.lookUp($0, for: workload) }
        switch (known, message.question.type) {
        case (.addresses(let addresses, let alias), .a), (.addresses(let addresses, let alias), .aaaa):
            answer(message, original, addresses, alias: alias, limits: snapshot.settings.limits, asker)
        case (.nonexistent, _): refuse(message, original, .nameError, asker, from: .mesh)
        default: forward(waiter(known != nil), limits: snapshot.settings.limits)
        }
    }

    private func refuse(
        _ message: DNSMessage, _ original: UnsafeRawBufferPointer, _ code: DNSResponseCode, _ asker: DNSAsker,
        from source: DNSCounters.Source = .refused
    ) {
        writer.startResponse(to: message, original, code, isAuthoritative: false)
        writer.finishResponse(to: message, limit: 512)
        counters.answered(source)
        asker.answer(writer.bytes)
    }

    private func answer(
        _ message: DNSMessage, _ original: UnsafeRawBufferPointer, _ addresses: [IPAddress], alias: String?,
        limits: Limits, _ asker: DNSAsker
    ) {
        writer.startResponse(to: message, original, .noError, isAuthoritative: true)
        let target = alias.flatMap(DNSName.init)
        if let target { writer.addAlias(target, ttl: limits.dnsOwnTTL) }
        let wanted = addresses.filter { $0.isIPv4 == (message.question.type == .a) }
        // Clients take the first: in another order each time, all get their share.
        for address in wanted.shuffled(using: &core.random).prefix(limits.dnsAddresses) {
            writer.addAddress(address, of: target == nil ? .question : .alias, ttl: limits.dnsOwnTTL)
        }
        writer.finishResponse(to: message, limit: asker.isStream ? 65535 : message.answerLimit)
        counters.answered(.mesh)
        asker.answer(writer.bytes)
    }

    // MARK: Upstreams

    private func forward(_ waiter: DNSWaiter, limits: Limits) {
        let key = DNSQuestionKey(waiter.message, server: waiter.asker.server)
        let found = cache.find(key, now: core.now, limits: limits)
        if let found {
            if found.isFresh {
                counters.answered(.cache)
                return give(found.response, .seconds(found.age), to: waiter)
            }
            if found.isResting { return giveStale(found, to: waiter, limits: limits) }
        }
        if let running = lookups[key] {
            if running.waiters.count < limits.dnsWaitersPerQuestion {
                running.waiters.append(waiter)
            } else {
                giveUp(on: waiter, found, limits: limits)
            }
            return
        }
        waiter.original.withUnsafeBytes { writer.writeQuestion(of: waiter.message, $0) }
        guard
            let lookup = makeLookup(waiter, key: key, query: writer.bytes, overTCP: false, limits: limits)
        else { return giveUp(on: waiter, found, limits: limits) }
        lookups[key] = lookup
        lookup.start(staleDue: found == nil ? nil : { [unowned self] in serveStale($0) }) { [unowned self] in
            lookups[key] = nil
            ended($0, $1)
        }
    }

    /// Messages that are more than a question (updates, signed questions) go on as they are and are asked once each.
    private func pass(_ waiter: DNSWaiter, limits: Limits) {
        guard
            let lookup = makeLookup(
                waiter, key: nil, query: waiter.original, overTCP: waiter.asker.isStream, limits: limits)
        else { return giveUp(on: waiter, nil, limits: limits) }
        opaque[ObjectIdentifier(lookup)] = lookup
        lookup.start(staleDue: nil) { [unowned self] in
            opaque[ObjectIdentifier($0)] = nil
            ended($0, $1)
        }
    }

    private func makeLookup(
        _ waiter: DNSWaiter, key: DNSQuestionKey?, query: [UInt8], overTCP: Bool, limits: Limits
    ) -> DNSLookup? {
        let servers = waiter.asker.server.map { [$0] } ?? defaultServers()
        guard inFlight < limits.dnsQuestionsInFlight, !servers.isEmpty else { return nil }
        counters.upstreamAsked()
        return try? DNSLookup(
            waiter, key: key, query: query, servers: servers, overTCP: overTCP, transport: transport, core: core,
            limits: limits)
    }

    private func ended(_ lookup: DNSLookup, _ outcome: DNSLookup.Outcome) {
        counters.upstreamEnded(after: core.now - lookup.startedAt, outcome)
        let limits = current().0.settings.limits
        let waiters = lookup.waiters
        lookup.waiters.removeAll()
        if case .passed(var bytes) = outcome {
            for waiter in waiters {
                bytes.replaceSubrange(0..<2, with: waiter.original[0..<2])
                counters.answered(.upstream)
                waiter.asker.answer(bytes)
            }
            return
        }
        guard case .answered(let response) = outcome, response.message.isResolved else {
            return failed(lookup, outcome, waiters, limits: limits)
        }
        if let key = lookup.key { cache.store(response, for: key, now: core.now, limits: limits) }
        for waiter in waiters {
            counters.answered(.upstream)
            give(response, .seconds(0), to: waiter)
        }
    }

    private func failed(
        _ lookup: DNSLookup, _ outcome: DNSLookup.Outcome, _ waiters: [DNSWaiter], limits: Limits
    ) {
        let found = lookup.key.flatMap { cache.find($0, now: core.now, limits: limits) }
        if let key = lookup.key { cache.rest(key, until: core.now + limits.dnsRetryNanoseconds) }
        for waiter in waiters {
            if found == nil, case .answered(let response) = outcome {
                // The server's own refusal says more than ours.
                counters.answered(.failure)
                give(response, .seconds(0), to: waiter)
            } else {
                giveUp(on: waiter, found, limits: limits)
            }
        }
    }

    /// Who waits for a fresh answer has waited long enough; the lookup goes on for those who come later.
    private func serveStale(_ lookup: DNSLookup) {
        let limits = current().0.settings.limits
        guard let key = lookup.key, let found = cache.find(key, now: core.now, limits: limits) else { return }
        let waiters = lookup.waiters
        lookup.waiters.removeAll()
        for waiter in waiters { giveStale(found, to: waiter, limits: limits) }
    }

    private func giveStale(_ found: DNSCache.Found, to waiter: DNSWaiter, limits: Limits) {
        counters.answered(.stale)
        give(found.response, .stale(ttl: limits.dnsStaleTTL), to: waiter)
    }

    private func giveUp(on waiter: DNSWaiter, _ found: DNSCache.Found?, limits: Limits) {
        if let found { return giveStale(found, to: waiter, limits: limits) }
        waiter.original.withUnsafeBytes {
            refuse(waiter.message, $0, .serverFailure, waiter.asker, from: .failure)
        }
    }

    private func give(_ response: DNSStoredResponse, _ age: DNSStoredResponse.Age, to waiter: DNSWaiter) {
        waiter.original.withUnsafeBytes {
            response.answer(
                waiter.message, $0, age: age, limit: waiter.limit, nameExists: waiter.nameExists, into: &output)
        }
        waiter.asker.answer(output)
    }
}
