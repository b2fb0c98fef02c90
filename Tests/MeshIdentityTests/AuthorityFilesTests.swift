import Foundation
import MeshIdentity
import MeshTLS
import Testing

@Suite struct AuthorityFilesTests {
    let folder: TemporaryFolder
    let files: AuthorityFiles

    init() throws {
        folder = try TemporaryFolder()
        files = AuthorityFiles(certificate: folder.file("ca.pem"), key: folder.file("ca.key"))
    }

    private func load(domain: String = "mesh.test", at now: Int64 = start) throws -> EmbeddedAuthority {
        try files.loadOrCreate(trustDomain: domain, now: now)
    }

    private func expectError(
        _ reason: IdentityError.Reason, _ words: String, sourceLocation: SourceLocation = #_sourceLocation,
        _ body: () throws -> some Any
    ) {
        let error = #expect(throws: IdentityError.self, sourceLocation: sourceLocation) { _ = try body() }
        #expect(error?.reason == reason, sourceLocation: sourceLocation)
        #expect(
            error?.description.contains(words) == true, "\(error?.description ?? "")", sourceLocation: sourceLocation)
    }

    @Test func madeOnceThenRead() throws {
        let made = try load()
        #expect(try folder.mode("ca.key") == 0o600)
        #expect(try folder.mode("ca.pem") == 0o644)
        // No drafts, no lock file.
        #expect(try folder.names() == ["ca.key", "ca.pem"])
        let read = try load(at: start + 1000)
        #expect(read.certificate.serial == made.certificate.serial)
        #expect(read.trustDomain == "mesh.test")
    }

    @Test func manyDaemonsAtOnceAgree() async throws {
        let serials = try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<8 { group.addTask { try load().certificate.serial } }
            return try await group.reduce(into: Set()) { $0.insert($1) }
        }
        #expect(serials.count == 1)
    }

    @Test func whoHoldsTheFoldersLockKeepsNobodyFromReadingAPair() throws {
        let made = try load()
        let holder = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        defer { close(holder) }
        #expect(flock(holder, LOCK_EX | LOCK_NB) == 0)
        #expect(try load().certificate.serial == made.certificate.serial)
    }

    @Test func aDraftOfADaemonThatDiedIsNoObstacle() throws {
        try folder.write("ca.key.new", "half a k")
        _ = try load()
        #expect(try folder.names() == ["ca.key", "ca.pem"])
    }

    @Test(arguments: [0o640, 0o604, 0o644, 0o660, 0o610])
    func aKeyThatOthersCanReadIsRefused(_ mode: Int) throws {
        _ = try load()
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: files.key)
        expectError(.permissions, "chmod 600") { try load() }
    }

    @Test func halfAPairIsRefused() throws {
        _ = try load()
        try FileManager.default.removeItem(atPath: files.key)
        expectError(.file, "restore the key") { try load() }
        // Nothing was made in its place.
        #expect(try folder.names() == ["ca.pem"])
        try FileManager.default.removeItem(atPath: files.certificate)
        _ = try load()
        try FileManager.default.removeItem(atPath: files.certificate)
        expectError(.file, "restore the certificate") { try load() }
    }

    @Test func aPairThatDoesNotBelongTogetherIsRefused() throws {
        _ = try load()
        let other = try EmbeddedAuthority.create(trustDomain: "mesh.test", now: start)
        try folder.write("ca.key", other.keyPEM)
        expectError(.authority, "does not belong to its certificate") { try load() }
    }

    @Test func anExpiredAuthorityIsRefused() throws {
        _ = try load()
        expectError(.authority, "expired") { try load(at: start + EmbeddedAuthority.rootLifetimeSeconds + 1) }
    }

    @Test func anotherTrustDomainIsRefused() throws {
        _ = try load()
        expectError(.authority, "trust domain mesh.test, but the mesh's is other.test") {
            try load(domain: "other.test")
        }
    }

    @Test func filesThatAreSomethingElse() throws {
        _ = try load()
        try folder.write("ca.pem", "not a certificate")
        expectError(.authority, "no certificate in PEM form") { try load() }
        try folder.write("ca.pem", "", mode: 0o644)
        expectError(.authority, "no certificate in PEM form") { try load() }
        try FileManager.default.removeItem(atPath: files.certificate)
        try FileManager.default.createDirectory(atPath: files.certificate, withIntermediateDirectories: false)
        expectError(.file, "not a regular file") { try load() }
    }

    @Test func aFIFODoesNotHangTheDaemon() throws {
        _ = try load()
        try FileManager.default.removeItem(atPath: files.key)
        #expect(mkfifo(files.key, 0o600) == 0)
        expectError(.file, "not a regular file") { try load() }
    }

    @Test func aMissingFolderIsNamed() throws {
        let lost = AuthorityFiles(certificate: folder.file("no/ca.pem"), key: folder.file("no/ca.key"))
        expectError(.file, "No such file") { try lost.loadOrCreate(trustDomain: "mesh.test", now: start) }
    }
}
