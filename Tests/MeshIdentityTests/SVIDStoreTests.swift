import MeshIdentity
import MeshModel
import MeshTLS
import Synchronization
import Testing

@Suite struct SVIDStoreTests {
    let clock = ManualClock()
    let signer: ScriptedSigner

    init() throws { signer = try ScriptedSigner(clock) }

    private func store(changed: @escaping @Sendable (SVID) -> Void = { _ in }) -> SVIDStore {
        SVIDStore(signer: signer, clock: clock.clock, jitter: { 1 }, changed: changed)
    }

    @Test func oneRequestServesEverybodyWhoWaits() async throws {
        let store = store()
        let serials = try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<20 { group.addTask { try await store.svid(for: identity("shop")).certificate.serial } }
            return try await group.reduce(into: Set()) { $0.insert($1) }
        }
        #expect(serials.count == 1)
        #expect(signer.requests == 1)
        #expect(store.current(identity("shop"))?.certificate.serial == serials.first)
        #expect(store.current(identity("cart")) == nil)
    }

    @Test func requestsInFlightAreBounded() async throws {
        let store = store()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<40 { group.addTask { _ = try await store.svid(for: identity("a\(number)")) } }
            try await group.waitForAll()
        }
        #expect(signer.requests == 40)
        #expect(signer.mostInFlight <= SVIDStore.concurrency)
    }

    @Test func renewsAtHalfLifeWithANewKey() async throws {
        let told = Mutex<[String]>([])
        let store = store { svid in told.withLock { $0.append(svid.certificate.serial) } }
        let first = try await store.svid(for: identity("shop"))
        #expect(store.nextDue == first.halfLife)
        clock.advance(first.halfLife - clock.now - 1)
        await store.renewDue()
        #expect(signer.requests == 1)
        clock.advance(1)
        await store.renewDue()
        let second = try await store.svid(for: identity("shop"))
        #expect(signer.requests == 2)
        #expect(second.certificate.serial != first.certificate.serial)
        #expect(!second.certificate.matches(first.key))
        #expect(told.withLock { $0 } == [first.certificate.serial, second.certificate.serial])
    }

    @Test func keepsTheOldOneWhileRenewalFails() async throws {
        let store = store()
        let first = try await store.svid(for: identity("shop"))
        let trouble = IdentityError(.unavailable, "the CA is away")
        signer.fail(trouble)
        clock.advance(first.halfLife - clock.now)
        var delays: [Int64] = []
        while clock.now < first.notAfter {
            await store.renewDue()
            let kept = try await store.svid(for: identity("shop"))
            #expect(kept === first)
            let due = try #require(store.nextDue)
            delays.append(due - clock.now)
            clock.advance(due - clock.now)
        }
        #expect(Array(delays.prefix(10)) == [1, 2, 4, 8, 16, 32, 64, 128, 150, 150])
        // Now it has expired: an error, and never the old one.
        await store.renewDue()
        #expect(store.current(identity("shop")) == nil)
        #expect(store.states()[identity("shop")] == .unavailable("the CA is away"))
        await #expect(throws: trouble) { try await store.svid(for: identity("shop")) }
        // And it comes back.
        signer.fail(nil)
        clock.advance(150)
        await store.renewDue()
        let later = try await store.svid(for: identity("shop"))
        #expect(later.notAfter > clock.now)
        #expect(store.states()[identity("shop")] == .available(until: later.notAfter))
    }

    @Test func aFailureIsNotRepeatedBeforeItsTime() async throws {
        let store = store()
        signer.fail(IdentityError(.refused, "no"))
        for _ in 0..<5 {
            await #expect(throws: IdentityError(.refused, "no")) { try await store.svid(for: identity("shop")) }
        }
        #expect(signer.requests == 1)
        clock.advance(1)
        await #expect(throws: IdentityError.self) { try await store.svid(for: identity("shop")) }
        #expect(signer.requests == 2)
    }

    @Test func forgottenIdentitiesAreNotRenewed() async throws {
        let store = store()
        _ = try await store.svid(for: identity("shop"))
        store.forget(identity("shop"))
        #expect(store.current(identity("shop")) == nil)
        #expect(store.nextDue == nil)
        clock.advance(80_000)
        await store.renewDue()
        #expect(signer.requests == 1)
        #expect(store.states().isEmpty)
    }

    @Test func aSignerThatGivesAnotherIdentityIsNotBelieved() async throws {
        struct Liar: CertificateSigner {
            let authority: EmbeddedAuthority
            func sign(_ request: CertificateRequest, identity: SPIFFEID) async throws -> SignedCertificate {
                // Another store's certificate: right authority, wrong key.
                let key = try PrivateKey.generate()
                let other = try CertificateRequest(key: key, identity: identity)
                return SignedCertificate(
                    chain: try authority.sign(other, identity: identity, now: start),
                    trustBundle: authority.trustBundle)
            }
        }
        let authority = try EmbeddedAuthority.create(trustDomain: "mesh.test", now: start)
        let store = SVIDStore(signer: Liar(authority: authority), clock: clock.clock)
        let error = await #expect(throws: IdentityError.self) { try await store.svid(for: identity("shop")) }
        #expect(error?.description.contains("not for the key") == true)
    }

    @Test func runRenewsAsTimePasses() async throws {
        let (renewals, renewed) = AsyncStream.makeStream(of: SVID.self)
        let store = store { renewed.yield($0) }
        let running = Task { await store.run() }
        let first = try await store.svid(for: identity("shop"))
        var iterator = renewals.makeAsyncIterator()
        #expect(await iterator.next() === first)
        var last = first
        for _ in 0..<3 {
            // Waits are bounded, so time passes in steps.
            while clock.now < last.halfLife {
                let until = await clock.nextWait()
                clock.advance(max(1, until - clock.now))
            }
            let next = try #require(await iterator.next())
            #expect(next.notBefore >= last.halfLife - 60)
            last = next
        }
        running.cancel()
        await running.value
    }
}
