import Glibc
import Testing

@testable import MeshRuntime

/// Servers that answer from the address they were asked at, on loopback.
@Suite("Datagram sockets")
struct DatagramSocketTests {
    /// Two addresses of lo, so that the source of the answer is a choice.
    @Test(
        "Answers come from the address that was asked; the socket of a kernel without IPv6 does the same",
        arguments: [(true, "127.0.0.9"), (false, "127.0.0.9"), (false, "::1")])
    func answers(_ ipv4: Bool, _ text: String) throws {
        let core = try Core(index: 0, clock: .system, seed: 1)
        let asked: RawSocketAddress = text == "::1" ? .loopback6 : .v4(0x7f00_0009, port: 0)
        let descriptor = try Socket.bindDatagrams(port: 0, ipv4: ipv4)
        let port = try Socket.localAddress(of: descriptor).port
        var seen: (to: RawSocketAddress, isLocal: Bool)?
        let server = try DatagramSocket(adopting: descriptor, on: core) { socket in
            withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
                guard case .bytes(let count, let from, let to, let isLocal) = socket.receive(into: buffer) else {
                    return
                }
                seen = (to, isLocal)
                #expect(socket.send(UnsafeRawBufferPointer(rebasing: buffer[..<count]), from: to, to: from) == nil)
            }
        }
        defer { server.close() }
        var answer: [UInt8] = []
        // Connected: it takes nothing from any other source.
        let client = try DatagramSocket(
            adopting: Socket.connectDatagrams(to: asked.with(port: port)), on: core
        ) { socket in
            withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
                if case .bytes(let count, _, _, _) = socket.receive(into: buffer) { answer = Array(buffer[..<count]) }
            }
        }
        defer { client.close() }
        let question: [UInt8] = [1, 2, 3]
        #expect(question.withUnsafeBytes { client.send($0) } == nil)
        let start = core.now
        while answer.isEmpty, core.now < start + 10_000_000_000 { core.turn(waitingAtMost: 100_000_000) }
        #expect(answer == question)
        #expect(seen?.to.with(port: 0) == asked && seen?.isLocal == true)
    }
}
