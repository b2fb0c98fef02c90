public import MeshModel
public import MeshTLS
import Synchronization

/// The SVIDs of this process: one per identity, keys in memory only, renewed at half of their life.
///
/// Every identity asked for is kept until `forget`. While renewal fails the valid SVID stays in use and attempts are
/// repeated, 1 s apart and then twice as long each time up to 150 s, 20 % more or less so that a fleet does not knock
/// at once. An expired SVID is never given out.
// Everything shared is inside the mutex; no lock is held while a signer or a callback works.
public final class SVIDStore: Sendable {
    /// What operators see of one identity.
    public enum State: Hashable, Sendable {
        case initializing
        /// Until this unix second.
        case available(until: Int64)
        case unavailable(String)
    }

    private struct Entry {
        /// Tells an entry from one that was forgotten and asked for again.
        let number: UInt64
        var svid: SVID?
        var attempt: Task<Result<SVID, IdentityError>, Never>?
        var failures = 0
        var error: IdentityError?
        /// The next attempt, in unix seconds.
        var due: Int64
    }

    private struct Shared {
        var entries: [SPIFFEID: Entry] = [:]
        var nextNumber: UInt64 = 0
        /// Ends the rotation's wait.
        var wake: AsyncStream<Void>.Continuation?
    }

    /// Requests in flight at once; more wait for their turn.
    public static let concurrency = 8
    private static let longestDelay: Int64 = 150
    /// Upper bound of one wait of `run`, for clocks that are set while it waits.
    private static let longestWait: Int64 = 60

    private let signer: any CertificateSigner
    private let clock: IdentityClock
    private let jitter: @Sendable () -> Double
    private let changed: @Sendable (SVID) -> Void
    private let turnstile = Turnstile(SVIDStore.concurrency)
    private let shared = Mutex(Shared())

    /// - Parameters:
    ///   - jitter: a factor around one for the delay after a failure.
    ///   - changed: told of every new SVID, the first of an identity included. Called on whatever thread got it.
    public init(
        signer: any CertificateSigner, clock: IdentityClock = .system,
        jitter: @escaping @Sendable () -> Double = { Double.random(in: 0.8...1.2) },
        changed: @escaping @Sendable (SVID) -> Void = { _ in }
    ) {
        self.signer = signer
        self.clock = clock
        self.jitter = jitter
        self.changed = changed
    }

    /// The identity's SVID: at once when there is a valid one, otherwise after the attempt in flight or a new one.
    /// Between attempts after a failure it throws what the last one said.
    public func svid(for identity: SPIFFEID) async throws(IdentityError) -> SVID {
        let now = clock.now()
        enum Step {
            case have(SVID)
            case wait(Task<Result<SVID, IdentityError>, Never>)
            case fail(IdentityError)
        }
        let step: Step = shared.withLock { shared in
            if let entry = shared.entries[identity] {
                if let svid = entry.svid, svid.notAfter > now { return .have(svid) }
                if let attempt = entry.attempt { return .wait(attempt) }
                if let error = entry.error, entry.due > now { return .fail(error) }
            }
            return .wait(begin(identity, &shared, now))
        }
        switch step {
        case .have(let svid): return svid
        case .wait(let attempt): return try await attempt.value.get()
        case .fail(let error): throw error
        }
    }

    /// The identity's valid SVID if there is one now; never waits.
    public func current(_ identity: SPIFFEID) -> SVID? {
        let now = clock.now()
        return shared.withLock { shared in
            guard let svid = shared.entries[identity]?.svid, svid.notAfter > now else { return nil }
            return svid
        }
    }

    /// Ends renewal and drops the key. An attempt in flight ends without effect.
    public func forget(_ identity: SPIFFEID) {
        shared.withLock { shared in
            shared.entries.removeValue(forKey: identity)?.attempt?.cancel()
        }
    }

    public func states() -> [SPIFFEID: State] {
        let now = clock.now()
        return shared.withLock { shared in
            shared.entries.mapValues { entry in
                if let svid = entry.svid, svid.notAfter > now { return .available(until: svid.notAfter) }
                guard let error = entry.error else { return .initializing }
                return .unavailable(error.description)
            }
        }
    }

    /// Renews what is due until the task is cancelled.
    public func run() async {
        while !Task.isCancelled {
            await renewDue()
            await waitForWork()
        }
    }

    /// Attempts everything that is due now and waits for the outcomes.
    package func renewDue() async {
        let now = clock.now()
        let attempts = shared.withLock { shared in
            let due = shared.entries.filter { $0.value.attempt == nil && $0.value.due <= now }.keys
            return due.map { begin($0, &shared, now) }
        }
        for attempt in attempts { _ = await attempt.value }
    }

    /// When the next attempt is due, in unix seconds.
    package var nextDue: Int64? {
        shared.withLock { $0.entries.values.filter { $0.attempt == nil }.map(\.due).min() }
    }

    private func waitForWork() async {
        let (woken, wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        // Set before looking, so that nothing that comes in between is missed.
        shared.withLock { $0.wake = wake }
        let now = clock.now()
        let seconds = max(1, min((nextDue ?? .max / 2) - now, SVIDStore.longestWait))
        let wait = clock.wait
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await wait(seconds) }
            group.addTask { for await _ in woken { break } }
            await group.next()
            group.cancelAll()
        }
    }
}

extension SVIDStore {
    /// Starts an attempt. Called with the lock held.
    private func begin(
        _ identity: SPIFFEID, _ shared: inout sending Shared, _ now: Int64
    ) -> Task<Result<SVID, IdentityError>, Never> {
        var entry = shared.entries[identity] ?? Entry(number: shared.nextNumber, due: now)
        if entry.number == shared.nextNumber { shared.nextNumber += 1 }
        let number = entry.number
        let attempt = Task { await self.attempt(identity, number) }
        entry.attempt = attempt
        shared.entries[identity] = entry
        return attempt
    }

    private func attempt(_ identity: SPIFFEID, _ number: UInt64) async -> Result<SVID, IdentityError> {
        await turnstile.enter()
        let outcome = await request(identity)
        turnstile.leave()
        let now = clock.now()
        let isCurrent = shared.withLock { shared in
            guard var entry = shared.entries[identity], entry.number == number else { return false }
            entry.attempt = nil
            switch outcome {
            case .success(let svid):
                entry.svid = svid
                entry.error = nil
                entry.failures = 0
                entry.due = max(svid.halfLife, now + 1)
            case .failure(let error):
                entry.error = error
                entry.due = now + delay(after: entry.failures)
                entry.failures += 1
                // Nothing of an expired SVID is of use, least of all its key.
                if let svid = entry.svid, svid.notAfter <= now { entry.svid = nil }
            }
            shared.entries[identity] = entry
            shared.wake?.yield()
            return true
        }
        if isCurrent, case .success(let svid) = outcome { changed(svid) }
        return outcome
    }

    private func request(_ identity: SPIFFEID) async -> Result<SVID, IdentityError> {
        do {
            // A new key every time: an old one that leaked is worth nothing after the rotation.
            let key = try PrivateKey.generate()
            let request = try CertificateRequest(key: key, identity: identity)
            let signed = try await signer.sign(request, identity: identity)
            let svid = try SVID(chain: signed.chain, key: key, trustBundle: signed.trustBundle, now: clock.now())
            guard svid.identity == identity else {
                return .failure(
                    IdentityError(.refused, "asked for \(identity), but the signer gave \(svid.identity)"))
            }
            return .success(svid)
        } catch let error as IdentityError {
            return .failure(error)
        } catch {
            return .failure(IdentityError(.unavailable, "no SVID for \(identity): \(error)"))
        }
    }

    private func delay(after failures: Int) -> Int64 {
        let doubled = min(SVIDStore.longestDelay, Int64(1) << Int64(min(failures, 16)))
        return max(1, Int64((Double(doubled) * jitter()).rounded()))
    }
}
