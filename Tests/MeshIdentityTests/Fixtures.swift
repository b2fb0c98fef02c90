import Foundation
import MeshIdentity
import MeshModel
import MeshTLS
import Synchronization
import Testing

let start: Int64 = 1_800_000_000

func identity(_ account: String, domain: String = "mesh.test") -> SPIFFEID {
    SPIFFEID(trustDomain: domain, namespace: "default", serviceAccount: account)
}

/// A folder of its own, 0755, gone with the value.
final class TemporaryFolder: Sendable {
    let path: String

    init() throws {
        // Short: a socket path has at most 107 bytes.
        path = "/tmp/culvert-\(UInt32.random(in: .min ... .max))"
        try FileManager.default.createDirectory(
            atPath: path, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o755])
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    func write(_ name: String, _ text: String, mode: Int = 0o600) throws {
        try Data(text.utf8).write(to: URL(fileURLWithPath: file(name)))
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file(name))
    }

    func mode(_ name: String) throws -> Int {
        let attributes = try FileManager.default.attributesOfItem(atPath: file(name))
        return try #require(attributes[.posixPermissions] as? NSNumber).intValue
    }

    func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    }
}

/// Time that a test moves.
final class ManualClock: Sendable {
    private struct Shared {
        var now = start
        var waiters: [(until: Int64, continuation: AsyncStream<Void>.Continuation)] = []
        var watchers: [CheckedContinuation<Int64, Never>] = []
    }

    private let shared = Mutex(Shared())

    var clock: IdentityClock {
        IdentityClock(
            now: { self.shared.withLock { $0.now } },
            wait: { await self.wait($0) })
    }

    var now: Int64 { shared.withLock { $0.now } }

    func advance(_ seconds: Int64) {
        let woken = shared.withLock { shared in
            shared.now += seconds
            let now = shared.now
            let woken = shared.waiters.filter { $0.until <= now }
            shared.waiters.removeAll { $0.until <= now }
            return woken
        }
        for waiter in woken { waiter.continuation.finish() }
    }

    /// The moment that somebody waits for: now, or as soon as somebody does.
    func nextWait() async -> Int64 {
        await withCheckedContinuation { continuation in
            let until = shared.withLock { shared -> Int64? in
                if let first = shared.waiters.map(\.until).min() { return first }
                shared.watchers.append(continuation)
                return nil
            }
            if let until { continuation.resume(returning: until) }
        }
    }

    private func wait(_ seconds: Int64) async {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
        let (until, watchers) = shared.withLock { shared in
            let until = shared.now + seconds
            shared.waiters.append((until, continuation))
            defer { shared.watchers = [] }
            return (until, shared.watchers)
        }
        for watcher in watchers { watcher.resume(returning: until) }
        for await _ in stream {}
        // Cancelled or due: nobody waits for this any more.
        shared.withLock { shared in shared.waiters.removeAll { $0.until == until } }
    }
}

/// A signer that can be told to fail, and counts.
final class ScriptedSigner: CertificateSigner {
    private struct Shared {
        var error: IdentityError?
        var requests = 0
        var inFlight = 0
        var most = 0
    }

    private let signer: EmbeddedSigner
    private let shared = Mutex(Shared())

    init(_ clock: ManualClock, lifetimeSeconds: Int64 = 86_400) throws {
        let authority = try EmbeddedAuthority.create(trustDomain: "mesh.test", now: start)
        signer = EmbeddedSigner(authority, lifetimeSeconds: lifetimeSeconds, clock: clock.clock)
    }

    var requests: Int { shared.withLock { $0.requests } }
    var mostInFlight: Int { shared.withLock { $0.most } }

    func fail(_ error: IdentityError?) { shared.withLock { $0.error = error } }

    func sign(_ request: CertificateRequest, identity: SPIFFEID) async throws -> SignedCertificate {
        let error = shared.withLock { shared in
            shared.requests += 1
            shared.inFlight += 1
            shared.most = max(shared.most, shared.inFlight)
            return shared.error
        }
        defer { shared.withLock { $0.inFlight -= 1 } }
        await Task.yield()
        if let error { throw error }
        return try await signer.sign(request, identity: identity)
    }
}
