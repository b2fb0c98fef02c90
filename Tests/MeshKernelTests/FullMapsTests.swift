import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshKernel

/// Full maps of the tiers besides T1's own (`DirectTests`): accelerated connections, the records of closed ones, and what
/// levels L1 and L2 note.
@Suite(.serialized, .timeLimit(.minutes(4)))
struct FullMapsTests {
    /// Both ways, more than the sockets' buffers hold.
    private static let exchange = """
        c, s = pair()
        def check(sender, receiver, seed):
            data = random.Random(seed).randbytes(3 << 20)
            thread = threading.Thread(target=sender.sendall, args=(data,))
            thread.start()
            assert read(receiver, len(data)) == data
            thread.join()
        check(c, s, 1)
        check(s, c, 2)
        c.shutdown(socket.SHUT_WR)
        assert read(s) == b''
        s.close()
        assert read(c) == b''
        c.close()

        """

    private func expectWire(_ mesh: AccelerateLab, sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(try mesh.run(Self.exchange) == [], sourceLocation: sourceLocation)
        let record = try #require(try mesh.records(1).first, sourceLocation: sourceLocation)
        #expect(record.bytesAccelerated == 0 && record.isOrderly, sourceLocation: sourceLocation)
        #expect(record.bytesSent == 3 << 20 && record.bytesReceived == 3 << 20 + 1, sourceLocation: sourceLocation)
        #expect(
            try mesh.count(.accelerationRefused) == 1 && mesh.count(.accelerated) == 0, sourceLocation: sourceLocation)
        #expect(try mesh.count(.direct) == 1 && mesh.count(.directLost) == 0, sourceLocation: sourceLocation)
    }

    @Test func withoutRoomForAShortcutBytesGoByTCP() throws {
        let mesh = try AccelerateLab()
        let shortcuts = try #require(mesh.capture).objects.shortcuts
        #expect(shortcuts.fill { .init(Nobody.address($0), Nobody.address(0)) } == 32768)
        try expectWire(mesh)
        shortcuts.remove(.init(Nobody.address(0), Nobody.address(0)))
        #expect(try mesh.run(Self.exchange) == [])
        #expect(try (mesh.records(1).first?.bytesAccelerated ?? 0) > 0)
    }

    @Test func withoutRoomForItsSocketsBytesGoByTCP() throws {
        // A socket may stand under any number of keys while the map has no programs.
        let mesh = try AccelerateLab(acceleration: .unfit("not yet"))
        // A `culvert_end` fits in this key.
        let pins = try #require(mesh.capture).pins
        let ends = BPFMap<SIMD16<UInt32>, UInt64>(
            descriptor: try #require(BPFLink.open(pins.path("ends"))), name: "ends")
        // The kernel looks for one of a socket's places by walking all of them.
        let namespace = try mesh.lab.namespace(mesh.lab.out)
        var listeners: [Int32] = []
        defer { for listener in listeners { Socket.close(listener) } }
        for _ in 0..<64 {
            listeners.append(
                try namespace.run { () throws(SystemError) -> Int32 in try Socket.listen(.v4(0, port: 0)) })
        }
        var count: UInt32 = 0
        while ends.update(UInt64(listeners[Int(count) % 64]), for: SIMD16(repeating: count + 1)) == 0 { count += 1 }
        #expect(count == 65536)
        // The kernel reads this kind of map entry by entry alone.
        #expect(ends.entries.count == 65536)
        mesh.capture = nil
        mesh.capture = try KernelCapture(options: mesh.lab.options)
        try mesh.attach()
        try mesh.allow()
        try expectWire(mesh)
        ends.remove(SIMD16(repeating: 1))
        ends.remove(SIMD16(repeating: 2))
        #expect(try mesh.run(Self.exchange) == [])
        #expect(try (mesh.records(1).first?.bytesAccelerated ?? 0) > 0)
    }

    @Test func withoutRoomForItsRecordAConnectionIsUnharmed() throws {
        let mesh = try AccelerateLab()
        try mesh.allow(accelerated: false)
        // A record takes 136 of the ring's 1,048,576 bytes, and nobody reads them.
        let program = """
            for turn in range(8000):
                c = dial()
                s = accept()
                c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                c.close()
                s.close()

            """
        #expect(try mesh.run(program + Self.exchange + "print('exact')") == ["exact"])
        let lost = try mesh.count(.recordLost)
        #expect(lost >= 8001 - UInt64((1 << 20) / 136) && lost < 8001)
        let records = try mesh.records(8001 - Int(lost))
        #expect(records.count == 8001 - Int(lost) && records.allSatisfy { $0.bytesSent == 0 })
        let capture = try #require(mesh.capture)
        #expect(capture.followedFlows == 0 && capture.objects.flows.keys.isEmpty)
        // Once they are read there is room again.
        #expect(try mesh.run(Self.exchange) == [])
        #expect(try mesh.records(1).first?.bytesSent == 3 << 20)
        #expect(try mesh.count(.recordLost) == lost)
    }

    /// L1: a leg that is not noted would come back to the proxy as if it were its client.
    @Test func withoutRoomToNoteItALegIsRefused() throws {
        try LevelFixture.with(.l1) { fixture in
            let (lab, proxy) = (fixture.lab, try #require(fixture.proxy))
            try lab.serve(in: lab.pod, port: 8080)
            try fixture.attach()
            let objects = try #require(fixture.capture.programs).objects
            let limit = 65536 - 64
            #expect(objects.flows.fill(upTo: limit) { .init(Nobody.address($0), Nobody.address(0)) } == limit)
            #expect(objects.flowCount.update(UInt64(limit), for: 0) == 0)
            func converse() throws -> String {
                try Proxy.converse(
                    in: lab.namespace(lab.pod), from: #require(IPAddress("198.51.100.7")), to: lab.v4, port: 8080,
                    text: "hello")
            }
            #expect(throws: SystemError.self) { try converse() }
            #expect(proxy.accept(proxy.inbound + proxy.outbound) == nil)
            #expect(fixture.capture.statistics(of: lab.name)?[.refusedLeg] == 1)
            #expect(objects.flowCount.update(UInt64(limit - 1), for: 0) == 0)
            #expect(try converse().hasSuffix("|hello"))
            #expect(fixture.capture.statistics(of: lab.name)?[.refusedLeg] == 1)
        }
    }
}
