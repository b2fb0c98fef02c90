import Glibc
import MeshModel
import Testing

@testable import MeshTLS

/// A fixed moment: no test depends on the machine's clock.
let now: Int64 = 1_800_000_000

func identity(_ account: String, domain: String = "mesh.test") -> SPIFFEID {
    SPIFFEID(trustDomain: domain, namespace: "default", serviceAccount: account)
}

/// A small authority that also signs what it should not.
struct Mint {
    let authority: EmbeddedAuthority
    let key: PrivateKey

    init(domain: String = "mesh.test", at time: Int64 = now) throws {
        let made = try EmbeddedAuthority.create(trustDomain: domain, now: time)
        key = try PrivateKey(pem: made.keyPEM)
        authority = made
    }

    func svid(_ account: String, domain: String = "mesh.test") throws -> SVID {
        let key = try PrivateKey.generate()
        let name = identity(account, domain: domain)
        let request = try CertificateRequest(key: key, identity: name)
        let chain = try authority.sign(request, identity: name, now: now)
        return try SVID(chain: chain, key: key, trustBundle: authority.trustBundle, now: now)
    }

    func context(_ account: String, at time: Int64 = now) throws -> TLSContext {
        try TLSContext(svid: svid(account), clock: { time })
    }

    /// A context that presents `template` however wrong it is: the SVID's own checks are those of the time of issue,
    /// so a bad certificate has to get past them by another way.
    func context(
        presenting template: CertificateTemplate, trusting bundle: [Certificate]? = nil
    ) throws -> TLSContext {
        let key = try PrivateKey.generate()
        let leaf = try template.issue(for: key, by: authority.certificate, signer: self.key)
        let svid = SVID(
            unchecked: identity("crafted"), certificate: leaf, key: key, trustBundle: bundle ?? authority.trustBundle)
        return try TLSContext(svid: svid, clock: { now })
    }

    func template(_ uris: [String]) -> CertificateTemplate {
        var template = CertificateTemplate(notBefore: now - 60, notAfter: now + 3600)
        template.uris = uris
        return template
    }
}

/// SplitMix64: the same bytes from the same seed everywhere.
struct Chance: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

extension TLSSession {
    /// One step of the handshake over arrays, in steps of `chunk` bytes of input and `room` bytes of output.
    func handshake(
        _ input: [UInt8], chunk: () -> Int = { .max }, room: Int = 64 * 1024
    ) -> (output: [UInt8], rest: [UInt8], status: HandshakeStatus) {
        var output: [UInt8] = []
        var position = 0
        var buffer = [UInt8](repeating: 0, count: room)
        while true {
            let count = min(chunk(), input.count - position)
            let progress = input.withUnsafeBytes { bytes in
                buffer.withUnsafeMutableBytes { place in
                    handshake(input: .init(rebasing: bytes[position..<position + count]), output: place)
                }
            }
            position += progress.consumed
            output += buffer[..<progress.produced]
            switch progress.status {
            case .needMore where position < input.count: continue
            case .outputFull: continue
            default:
                while hasPendingOutput { output += flush(room: room) }
                return (output, Array(input[position...]), progress.status)
            }
        }
    }

    func flush(room: Int = 64 * 1024) -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: room)
        let count = buffer.withUnsafeMutableBytes { flush(into: $0) }
        return Array(buffer[..<count])
    }

    func seal(_ plaintext: [UInt8], room: Int = 64 * 1024) -> [UInt8] {
        var output: [UInt8] = []
        var position = 0
        var buffer = [UInt8](repeating: 0, count: room)
        repeat {
            let progress = plaintext.withUnsafeBytes { bytes in
                buffer.withUnsafeMutableBytes { seal(.init(rebasing: bytes[position...]), into: $0) }
            }
            position += progress.consumed
            output += buffer[..<progress.produced]
            guard progress.status != .failed else { break }
        } while position < plaintext.count || hasPendingOutput
        return output
    }

    func open(_ ciphertext: [UInt8], room: Int = 64 * 1024) -> (plaintext: [UInt8], status: OpenStatus) {
        var output: [UInt8] = []
        var position = 0
        var buffer = [UInt8](repeating: 0, count: room)
        while true {
            let progress = ciphertext.withUnsafeBytes { bytes in
                buffer.withUnsafeMutableBytes { open(.init(rebasing: bytes[position...]), into: $0) }
            }
            position += progress.consumed
            output += buffer[..<progress.produced]
            guard progress.status == .plaintextFull else { return (output, progress.status) }
        }
    }

    func closeNotify() -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = buffer.withUnsafeMutableBytes { closeNotify(into: $0) }
        return Array(buffer[..<count])
    }
}

/// A client and a server joined by memory.
struct Pair {
    let client: TLSSession
    let server: TLSSession

    init(_ client: TLSContext, _ server: TLSContext, expecting: [SPIFFEID]) {
        self.client = TLSSession(client: client, expecting: expecting)
        self.server = TLSSession(server: server)
    }

    static func established(_ mint: Mint) throws -> Pair {
        let pair = try Pair(mint.context("client"), mint.context("server"), expecting: [identity("server")])
        pair.shake()
        return pair
    }

    /// Runs the handshake until neither side has anything to say. A side that is done reads what the other still says,
    /// as a connection would: a client hears of its refusal that way.
    func shake(chunk: () -> Int = { .max }, room: Int = 64 * 1024) {
        var toServer = client.handshake([], chunk: chunk, room: room).output
        var toClient: [UInt8] = []
        while !toServer.isEmpty || !toClient.isEmpty {
            let said = Pair.deliver(toServer, to: server, chunk: chunk, room: room)
            toClient += said
            toServer = Pair.deliver(toClient, to: client, chunk: chunk, room: room)
            toClient = []
        }
    }

    private static func deliver(
        _ bytes: [UInt8], to session: TLSSession, chunk: () -> Int, room: Int
    ) -> [UInt8] {
        guard !bytes.isEmpty else { return [] }
        guard session.state == .handshaking else {
            _ = session.open(bytes)
            return session.hasPendingOutput ? session.flush() : []
        }
        let step = session.handshake(bytes, chunk: chunk, room: room)
        if step.status == .done, !step.rest.isEmpty { _ = session.open(step.rest) }
        return step.output
    }
}

func memcmpEqual(_ left: UnsafeRawPointer, _ right: UnsafeRawPointer, _ count: Int) -> Bool {
    memcmp(left, right, count) == 0
}

extension TLSSession {
    /// What a test asks of a failed session.
    var reason: TLSFailure.Reason? { failure?.reason }

    /// Asks the peer to change keys too: makes it answer.
    func requestKeyUpdate() { requestPeerKeyUpdate() }
}
