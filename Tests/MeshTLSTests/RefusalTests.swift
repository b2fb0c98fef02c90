import MeshModel
import Testing

@testable import MeshTLS

/// Every way a peer is refused: the reason on our side, and the alert that the peer hears.
@Suite struct RefusalTests {
    let mint: Mint

    init() throws { mint = try Mint() }

    /// The client presents `template`, the server refuses it.
    private func server(refusing template: CertificateTemplate) throws -> Pair {
        let pair = try Pair(
            mint.context(presenting: template), mint.context("server"), expecting: [identity("server")])
        pair.shake()
        return pair
    }

    /// The server presents `template`, the client refuses it.
    private func client(refusing template: CertificateTemplate) throws -> Pair {
        let pair = try Pair(
            mint.context("client"), mint.context(presenting: template), expecting: [identity("server")])
        pair.shake()
        return pair
    }

    private func template(_ account: String) -> CertificateTemplate {
        mint.template([identity(account).description])
    }

    @Test func expired() throws {
        var old = template("server")
        old.notAfter = now - 1
        let client = try client(refusing: old)
        #expect(client.client.reason == .expired)
        #expect(client.server.reason == .alert(45))
        let server = try server(refusing: old)
        #expect(server.server.reason == .expired)
        #expect(server.client.reason == .alert(45))
        #expect(server.server.peerIdentity == nil)
    }

    @Test func notYetValid() throws {
        var early = template("server")
        early.notBefore = now + 100
        #expect(try client(refusing: early).client.reason == .notYetValid)
        #expect(try server(refusing: early).server.reason == .notYetValid)
    }

    @Test func expiredAuthority() throws {
        let late = now + EmbeddedAuthority.rootLifetimeSeconds + 1
        let pair = try Pair(
            mint.context("client", at: late), mint.context("server", at: late), expecting: [identity("server")])
        pair.shake()
        #expect(pair.client.reason == .expired)
    }

    @Test func anIdentityThatWasNotExpected() throws {
        let pair = try Pair(
            mint.context("client"), mint.context("server"), expecting: [identity("shop"), identity("cart")])
        pair.shake()
        #expect(
            pair.client.reason
                == .peerIdentity(
                    expected: "spiffe://mesh.test/ns/default/sa/shop or spiffe://mesh.test/ns/default/sa/cart",
                    got: "spiffe://mesh.test/ns/default/sa/server"))
        #expect(pair.client.peerIdentity == nil)
        #expect(pair.server.reason == .alert(42))
    }

    @Test func oneOfSeveralExpectedIdentities() throws {
        let pair = try Pair(
            mint.context("client"), mint.context("server"), expecting: [identity("shop"), identity("server")])
        pair.shake()
        #expect(pair.client.state == .established)
    }

    @Test func expectingNobodyAcceptsNobody() throws {
        let pair = try Pair(mint.context("client"), mint.context("server"), expecting: [])
        pair.shake()
        #expect(pair.client.reason == .peerIdentity(expected: "", got: identity("server").description))
    }

    @Test func anotherTrustDomainOfTheSameAuthority() throws {
        let foreign = mint.template([identity("server", domain: "other.test").description])
        let wrong = TLSFailure.Reason.trustDomain(
            expected: "mesh.test", got: "spiffe://other.test/ns/default/sa/server")
        #expect(try server(refusing: foreign).server.reason == wrong)
        #expect(try client(refusing: foreign).client.reason == wrong)
    }

    @Test func anotherAuthority() throws {
        let other = try Mint()
        let pair = try Pair(other.context("client"), mint.context("server"), expecting: [identity("server")])
        pair.shake()
        guard case .untrusted? = pair.client.reason else {
            Issue.record("\(String(describing: pair.client.failure))")
            return
        }
        #expect(pair.server.reason == .alert(48))
        // The client trusts both, the server only its own.
        let key = try PrivateKey.generate()
        let leaf = try other.template([identity("client").description]).issue(
            for: key, by: other.authority.certificate, signer: other.key)
        let generous = try TLSContext(
            svid: SVID(
                unchecked: identity("client"), certificate: leaf, key: key, trustBundle: mint.authority.trustBundle),
            clock: { now })
        let second = try Pair(generous, mint.context("server"), expecting: [identity("server")])
        second.shake()
        guard case .untrusted? = second.server.reason else {
            Issue.record("\(String(describing: second.server.failure))")
            return
        }
        #expect(second.client.reason == .alert(48))
    }

    @Test func selfSigned() throws {
        let key = try PrivateKey.generate()
        var own = mint.template([identity("server").description])
        own.commonName = "myself"
        let leaf = try own.issue(for: key, by: nil, signer: key)
        let context = try TLSContext(
            svid: SVID(
                unchecked: identity("server"), certificate: leaf, key: key, trustBundle: mint.authority.trustBundle),
            clock: { now })
        let pair = try Pair(mint.context("client"), context, expecting: [identity("server")])
        pair.shake()
        guard case .untrusted(let why)? = pair.client.reason else {
            Issue.record("\(String(describing: pair.client.failure))")
            return
        }
        #expect(why == "self-signed certificate")
    }

    @Test func severalURINames() throws {
        let two = mint.template([identity("server").description, identity("client").description])
        #expect(
            try client(refusing: two).client.reason
                == .notAnSVID("the certificate has 2 URI names instead of one SPIFFE identity"))
        let mixed = mint.template([identity("server").description, "https://mesh.test/"])
        #expect(
            try server(refusing: mixed).server.reason
                == .notAnSVID("the certificate has 2 URI names instead of one SPIFFE identity"))
    }

    @Test(arguments: [
        "https://mesh.test/ns/default/sa/server", "spiffe://mesh.test", "spiffe://mesh.test/ns/default/sa/server/",
        "spiffe://mesh.test/ns/default/sa/..", "spiffe://Mesh.test/ns/default/sa/server",
        "spiffe://mesh.test/ns/default/sa/server?x", "SPIFFE://mesh.test/ns/default/sa/server",
    ])
    func aNameThatIsNoIdentity(_ uri: String) throws {
        guard case .notAnSVID? = try server(refusing: mint.template([uri])).server.reason else {
            Issue.record("accepted \(uri)")
            return
        }
    }

    @Test func noURIName() throws {
        var anonymous = mint.template([])
        anonymous.commonName = "spiffe://mesh.test/ns/default/sa/server"
        #expect(
            try client(refusing: anonymous).client.reason
                == .notAnSVID("the certificate has 0 URI names instead of one SPIFFE identity"))
    }

    @Test func anAuthorityAsAWorkload() throws {
        var signer = template("server")
        signer.isAuthority = true
        #expect(try client(refusing: signer).client.reason == .wrongPurpose)
        signer.isHybrid = true
        #expect(
            try client(refusing: signer).client.reason
                == .notAnSVID("the certificate is an authority's, not a workload's"))
    }

    @Test func aCertificateForTheOtherSide() throws {
        var onlyServer = template("client")
        onlyServer.usages = [.serverAuth]
        let refused = try server(refusing: onlyServer)
        #expect(refused.server.reason == .wrongPurpose)
        #expect(refused.client.reason == .alert(43))
        var onlyClient = template("server")
        onlyClient.usages = [.clientAuth]
        #expect(try client(refusing: onlyClient).client.reason == .wrongPurpose)
    }

    @Test func theAlertComesOutOfOneByteOfRoom() throws {
        let client = try TLSSession(client: mint.context("client"), expecting: [identity("nobody")])
        let server = try TLSSession(server: mint.context("server"))
        let flight = server.handshake(client.handshake([]).output).output
        let refusal = client.handshake(flight, room: 1)
        #expect(refusal.status == .failed)
        #expect(server.handshake(refusal.output).status == .failed)
        #expect(server.reason == .alert(42))
    }

    @Test func afterAFailureNothingIsReadOrSealed() throws {
        let pair = try Pair.established(Mint())
        let record = pair.client.seal([1, 2, 3])
        var broken = record
        broken[10] ^= 1
        #expect(pair.server.open(broken).status == .failed)
        guard case .protocolViolation? = pair.server.reason else {
            Issue.record("\(String(describing: pair.server.failure))")
            return
        }
        // Even what would have been good.
        #expect(pair.server.open(record).status == .failed)
        let alert = pair.server.flush()
        #expect(pair.server.seal([1]).isEmpty)
        #expect(pair.client.open(alert).status == .failed)
        #expect(pair.client.reason == .alert(20))
    }

    @Test func keyUpdatesAreAnsweredInOrder() throws {
        let pair = try Pair.established(Mint())
        for round in 0..<100 {
            pair.client.requestKeyUpdate()
            #expect(pair.server.open(pair.client.seal([UInt8(round)])).plaintext == [UInt8(round)])
            // The answer leaves before the data that is under the new key.
            #expect(pair.client.open(pair.server.seal([1, 2])).plaintext == [1, 2])
            #expect(!pair.server.hasPendingOutput)
        }
    }

    @Test func aFloodOfKeyUpdatesEndsTheSession() throws {
        let pair = try Pair.established(Mint())
        var flood: [UInt8] = []
        for _ in 0...TLSSession.idleMessageLimit {
            pair.client.requestKeyUpdate()
            flood += pair.client.flush()
        }
        #expect(pair.server.open(flood).status == .failed)
        #expect(pair.server.reason == .flood)
    }

    @Test func answersThatNobodyTakesEndTheSession() throws {
        let pair = try Pair.established(Mint())
        var rounds = 0
        while pair.server.state == .established, rounds < 1000 {
            pair.client.requestKeyUpdate()
            _ = pair.server.open(pair.client.seal([1]))
            rounds += 1
        }
        #expect(pair.server.reason == .flood)
        #expect(rounds > 10 && rounds < 200)
    }

    @Test func descriptionsNameWhatHappened() {
        #expect(TLSFailure(.alert(45)).description == "peer refused with alert 45 (certificate_expired)")
        #expect(
            TLSFailure(.peerIdentity(expected: "a", got: "b")).description == "peer identity: expected a, got b")
        #expect(TLSFailure(.peerIdentity(expected: "a", got: "b")).meshReason == .peerIdentity)
        #expect(TLSFailure(.expired).meshReason == .tlsFailure)
    }
}
