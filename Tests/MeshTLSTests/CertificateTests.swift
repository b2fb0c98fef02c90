import MeshModel
import Testing

@testable import MeshTLS

@Suite struct CertificateTests {
    @Test func anSVIDIsWhatTheMeshExpects() throws {
        let mint = try Mint()
        let svid = try mint.svid("shop")
        #expect(svid.identity == identity("shop"))
        #expect(svid.notBefore == now - 60)
        #expect(svid.notAfter == now + 24 * 3600)
        #expect(svid.halfLife == now - 60 + (24 * 3600 + 60) / 2)
        #expect(svid.intermediates.isEmpty)
        let leaf = svid.certificate
        #expect(leaf.subject.isEmpty)
        #expect(!leaf.isAuthority)
        #expect(leaf.uris == ["spiffe://mesh.test/ns/default/sa/shop"])
        #expect(leaf.issuer == "CN=culvert mesh.test")
        #expect(try Certificate(pem: leaf.pem).der == leaf.der)
        // The names are critical because the subject is empty: OID 2.5.29.17, then TRUE.
        #expect(leaf.der.contains([0x06, 0x03, 0x55, 0x1D, 0x11, 0x01, 0x01, 0xFF]))
        // clientAuth and serverAuth.
        #expect(leaf.der.contains([0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]))
        #expect(leaf.der.contains([0x2B, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02]))
    }

    @Test func theRootIsARoot() throws {
        let root = try Mint().authority.certificate
        #expect(root.isAuthority && root.isSelfIssued)
        #expect(root.subject == "CN=culvert mesh.test")
        #expect(root.notBefore == now - 60)
        #expect(root.notAfter == now + 10 * 365 * 86_400)
        #expect(root.uris == ["spiffe://mesh.test"])
    }

    @Test func serialsAreRandomAndLong() throws {
        let mint = try Mint()
        var serials: Set<String> = []
        for _ in 0..<50 { serials.insert(try mint.svid("shop").certificate.serial) }
        #expect(serials.count == 50)
        #expect(serials.contains { $0.count == 32 })
        #expect(serials.allSatisfy { $0.count <= 32 })
    }

    @Test func anAuthorityComesBackFromItsText() throws {
        let mint = try Mint()
        let again = try EmbeddedAuthority(
            certificatePEM: mint.authority.certificatePEM, keyPEM: mint.authority.keyPEM, now: now)
        #expect(again.trustDomain == "mesh.test")
        let key = try PrivateKey.generate()
        let request = try CertificateRequest(key: key, identity: identity("a"))
        let chain = try again.sign(request, identity: identity("a"), now: now)
        #expect(throws: Never.self) {
            try SVID(chain: chain, key: key, trustBundle: mint.authority.trustBundle, now: now)
        }
    }

    @Test func anIntermediateSignsBelowItsRoot() throws {
        let root = try Mint()
        let key = try PrivateKey.generate()
        // A root of the test's own: the embedded one signs leaves only.
        let rootKey = try PrivateKey.generate()
        let rootPEM = try OpenSSLCommand.root(key: rootKey.pem)
        var template = CertificateTemplate(notBefore: now - 60, notAfter: now + 5000)
        template.isAuthority = true
        template.commonName = "intermediate"
        let rootCertificate = try Certificate(pem: rootPEM)
        let middle = try template.issue(for: key, by: rootCertificate, signer: rootKey)
        let time = rootCertificate.notBefore + 10
        template.notBefore = time - 60
        template.notAfter = time + 5000
        let valid = try template.issue(for: key, by: rootCertificate, signer: rootKey)
        #expect(throws: CertificateError.self) {
            try EmbeddedAuthority(certificatePEM: middle.pem + rootPEM, keyPEM: key.pem, now: time)
        }
        let authority = try EmbeddedAuthority(certificatePEM: valid.pem + rootPEM, keyPEM: key.pem, now: time)
        let leafKey = try PrivateKey.generate()
        let request = try CertificateRequest(key: leafKey, identity: identity("shop"))
        let chain = try authority.sign(request, identity: identity("shop"), now: time)
        #expect(chain.count == 2)
        let svid = try SVID(chain: chain, key: leafKey, trustBundle: authority.trustBundle, now: time)
        #expect(svid.intermediates.map(\.subject) == ["CN=intermediate"])
        // It ends with its issuer.
        #expect(svid.notAfter == time + 5000)
        // And the intermediate is presented: the peer knows only the root.
        let context = try TLSContext(svid: svid, clock: { time })
        let pair = Pair(context, context, expecting: [identity("shop")])
        pair.shake()
        #expect(pair.server.peerIdentity == identity("shop"))
        // Without the root in the file there is nothing to trust.
        expectError(.untrusted) {
            try EmbeddedAuthority(certificatePEM: valid.pem, keyPEM: key.pem, now: time)
        }
        _ = root
    }

    @Test func badAuthorities() throws {
        let mint = try Mint()
        let keyPEM = try mint.authority.keyPEM
        let certificatePEM = mint.authority.certificatePEM
        let otherKey = try PrivateKey.generate().pem
        expectError(.mismatched) {
            try EmbeddedAuthority(certificatePEM: certificatePEM, keyPEM: otherKey, now: now)
        }
        expectError(.expired) {
            try EmbeddedAuthority(certificatePEM: certificatePEM, keyPEM: keyPEM, now: now + 11 * 365 * 86_400)
        }
        expectError(.notYetValid) {
            try EmbeddedAuthority(certificatePEM: certificatePEM, keyPEM: keyPEM, now: now - 3600)
        }
        expectError(.malformed) { try EmbeddedAuthority(certificatePEM: "", keyPEM: keyPEM, now: now) }
        expectError(.malformed) { try EmbeddedAuthority(certificatePEM: keyPEM, keyPEM: keyPEM, now: now) }
        expectError(.malformed) {
            try EmbeddedAuthority(certificatePEM: certificatePEM, keyPEM: certificatePEM, now: now)
        }
        let cut = String(certificatePEM.prefix(200)) + "\n-----END CERTIFICATE-----\n"
        expectError(.malformed) { try EmbeddedAuthority(certificatePEM: cut, keyPEM: keyPEM, now: now) }
        let leaf = try mint.svid("shop")
        expectError(.notAnAuthority) {
            try EmbeddedAuthority(certificatePEM: leaf.certificate.pem, keyPEM: leaf.key.pem, now: now)
        }
        expectError(.identity) { try EmbeddedAuthority.create(trustDomain: "Not A Domain", now: now) }
        expectError(.identity) { try EmbeddedAuthority.create(trustDomain: "", now: now) }
    }

    @Test func whatAnAuthorityDoesNotSign() throws {
        let mint = try Mint()
        let request = try CertificateRequest(key: .generate(), identity: identity("shop"))
        expectError(.identity) { try mint.authority.sign(request, identity: identity("cart"), now: now) }
        let foreign = identity("shop", domain: "other.test")
        let abroad = try CertificateRequest(key: .generate(), identity: foreign)
        expectError(.identity) { try mint.authority.sign(abroad, identity: foreign, now: now) }
        let odd = SPIFFEID(trustDomain: "mesh.test", namespace: "a,URI:spiffe://x", serviceAccount: "b")
        let injected = try CertificateRequest(key: .generate(), identity: odd)
        expectError(.identity) { try mint.authority.sign(injected, identity: odd, now: now) }
        let late = now + EmbeddedAuthority.rootLifetimeSeconds + 5
        expectError(.expired) { try mint.authority.sign(request, identity: identity("shop"), now: late) }
        // Near its own end it signs for what is left.
        let near = now + EmbeddedAuthority.rootLifetimeSeconds - 100
        let chain = try mint.authority.sign(request, identity: identity("shop"), now: near)
        #expect(chain[0].notAfter == near + 100)
    }

    @Test func requestsFromOutside() throws {
        let key = try PrivateKey.generate()
        let request = try CertificateRequest(key: key, identity: identity("shop"))
        let again = try CertificateRequest(pem: request.pem)
        #expect(again.identity == identity("shop"))
        expectError(.malformed) { try CertificateRequest(pem: "") }
        expectError(.malformed) { try CertificateRequest(pem: key.pem) }
        // A signature that is not by the key asked for.
        var lines = request.pem.split(separator: "\n").map(String.init)
        let last = lines.count - 2
        lines[last] = String(lines[last].reversed())
        expectError(.malformed) { try CertificateRequest(pem: lines.joined(separator: "\n")) }
        let two = try OpenSSLCommand.request(
            names: "URI:spiffe://mesh.test/ns/default/sa/a,URI:spiffe://mesh.test/ns/default/sa/b")
        expectError(.identity) { try CertificateRequest(pem: two) }
        expectError(.identity) { try CertificateRequest(pem: OpenSSLCommand.request(names: "DNS:shop")) }
        #expect(try CertificateRequest(pem: OpenSSLCommand.request(names: nil)).identity == nil)
        let weak = try OpenSSLCommand.request(names: nil, key: ["-newkey", "rsa:1024"])
        expectError(.unsuitableKey) { try CertificateRequest(pem: weak) }
    }

    @Test func anEncryptedKeyIsRefusedAndNobodyIsAsked() throws {
        let pem = try OpenSSLCommand.run([
            "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes256", "-pass", "pass:secret",
        ])
        #expect(throws: CertificateError(.malformed, "the private key is encrypted: store it without a pass phrase")) {
            try PrivateKey(pem: pem)
        }
    }

    @Test func answersOfAnAuthorityAreChecked() throws {
        let mint = try Mint()
        let key = try PrivateKey.generate()
        let request = try CertificateRequest(key: key, identity: identity("shop"))
        let chain = try mint.authority.sign(request, identity: identity("shop"), now: now)
        let bundle = mint.authority.trustBundle
        expectError(.mismatched) {
            try SVID(chain: chain, key: PrivateKey.generate(), trustBundle: bundle, now: now)
        }
        expectError(.untrusted) {
            try SVID(chain: chain, key: key, trustBundle: Mint().authority.trustBundle, now: now)
        }
        expectError(.expired) { try SVID(chain: chain, key: key, trustBundle: bundle, now: now + 90_000) }
        expectError(.malformed) { try SVID(chain: [], key: key, trustBundle: bundle, now: now) }
        expectError(.malformed) { try SVID(chain: chain, key: key, trustBundle: [], now: now) }
        expectError(.identity) {
            try SVID(chain: bundle, key: mint.key, trustBundle: bundle, now: now)
        }
        // A root that came along is not presented.
        let svid = try SVID(chain: chain + bundle, key: key, trustBundle: bundle, now: now)
        #expect(svid.intermediates.isEmpty)
    }

    @Test func bundlesAreBoundedAndWhole() throws {
        let pem = try Mint().authority.certificatePEM
        #expect(try Certificate.bundle(pem: "root of the mesh\n" + pem + "\n\n" + pem).count == 2)
        let many = String(repeating: pem, count: Certificate.bundleLimit + 1)
        expectError(.malformed) { try Certificate.bundle(pem: many) }
        expectError(.malformed) {
            try Certificate.bundle(pem: pem + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        }
    }

    private func expectError(
        _ reason: CertificateError.Reason, _ body: () throws -> some Any,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let error = #expect(throws: CertificateError.self, sourceLocation: sourceLocation) { _ = try body() }
        #expect(error?.reason == reason, "\(error?.description ?? "")", sourceLocation: sourceLocation)
    }
}
