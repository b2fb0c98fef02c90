import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Tier T2: who is accelerated, what the records say of it, and how it ends.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct AccelerateTests {
    let mesh: AccelerateLab

    init() throws { mesh = try AccelerateLab() }

    @Test func theKernelIsFit() { #expect(AccelerationFitness.probe().obstacle == nil) }

    @Test(arguments: ["10.77.0.1", "fd00:77::1", "::ffff:10.77.0.1"])
    func bytesBypassTCPAndAreCounted_P13(host: String) throws {
        let program = """
            c, s = dial('\(host)'), accept()
            for turn in range(1000):
                c.sendall(b'q' * (turn + 1))
                read(s, turn + 1)
                s.sendall(b'a' * 7)
                read(c, 7)
            wait()
            c.shutdown(socket.SHUT_WR)
            assert read(s) == b''
            s.close()
            assert read(c) == b''
            c.close()
            """
        let words = try mesh.run(program) {
            let lanes = try mesh.lanes()
            #expect(lanes.client == .short && lanes.server == .short && lanes.bytes == [500_500, 7000])
        }
        #expect(words == [])
        let record = try #require(try mesh.records(1).first)
        #expect(record.bytesSent == 500_500 && record.bytesReceived == 7000 && record.bytesAccelerated == 507_500)
        #expect(record.isEstablished && record.isOrderly)
        #expect(try mesh.count(.accelerated) == 1 && mesh.count(.wireBulk) == 0 && mesh.count(.wireFirst) == 0)
        #expect(try #require(mesh.capture).objects.shortcuts.keys.isEmpty)
    }

    @Test func onlyWhereBothAskForIt() throws {
        try mesh.allow(accelerated: false)
        try #require(mesh.capture).setAcceleration(true)
        #expect(try mesh.run("c, s = pair(); c.sendall(b'x'); read(s, 1); c.close(); s.close()") == [])
        let record = try #require(try mesh.records(1).first)
        #expect(record.bytesSent == 1 && record.bytesAccelerated == 0)
        #expect(try mesh.count(.direct) == 1 && mesh.count(.accelerated) == 0)
    }

    @Test func anUnfitKernelStaysWithTCP() throws {
        let unfit = try AccelerateLab(acceleration: .unfit("too old"))
        #expect(try #require(unfit.capture).acceleration.obstacle == "too old")
        #expect(try unfit.run("c, s = pair(); c.sendall(b'x'); print(read(s, 1)); c.close(); s.close()") == ["b'x'"])
        let record = try #require(try unfit.records(1).first)
        #expect(record.isEstablished && record.bytesSent == 1 && record.bytesAccelerated == 0)
        #expect(try unfit.count(.direct) == 1 && unfit.count(.accelerated) == 0)
    }

    /// What a workload makes up in its own namespace must not take part for another one.
    @Test func aBorrowedAddressIsNotEnrolled() throws {
        try shell("ip -n \(mesh.lab.pod) addr add 10.77.0.1/32 dev lo")
        let program = """
            sys.argv[2] = sys.argv[1]
            listener = listen()
            port = listener.getsockname()[1]
            c, s = pair(prepare=lambda c: c.bind(('10.77.0.1', 0)))
            print(c.getpeername()[0])
            """
        #expect(try mesh.run(program) == ["10.77.0.1"])
        #expect(try mesh.count(.accelerationRefused) == 1 && mesh.count(.accelerated) == 0)
    }

    // MARK: The switch

    @Test(arguments: [false, true]) func theSwitchStopsItAtOnce_P14(onlyThisOne: Bool) throws {
        let program = """
            c, s = pair()
            c.sendall(b'a' * 1000)
            s.sendall(b'A' * 1000)
            wait()
            for text in b'b', b'c':
                c.sendall(text * 1000)
                s.sendall(text.upper() * 1000)
            c.shutdown(socket.SHUT_WR)
            assert read(s) == b'a' * 1000 + b'b' * 1000 + b'c' * 1000
            s.close()
            assert read(c) == b'A' * 1000 + b'B' * 1000 + b'C' * 1000
            c.close()
            """
        let capture = try #require(mesh.capture)
        let words = try mesh.run(program) {
            let flow = try #require(capture.directFlows().first)
            #expect(flow.isAccelerated)
            #expect(try mesh.lanes().bytes == [1000, 1001])
            if onlyThisOne { capture.slow(flow) } else { try capture.setAcceleration(false) }
            #expect(capture.directFlows().first?.isAccelerated == !onlyThisOne)
        }
        #expect(words == [])
        let record = try #require(try mesh.records(1).first)
        #expect(record.bytesSent == 3000 && record.bytesReceived == 3001 && record.bytesAccelerated == 2001)
        // New connections: as the switch says.
        #expect(try mesh.run("c, s = pair(); c.close(); s.close()") == [])
        #expect(try mesh.records(1).first?.bytesAccelerated == (onlyThisOne ? 1 : 0))
    }

    @Test func aNewDaemonLeavesOpenConnectionsAsTheyAre() throws {
        let program = """
            c, s = pair()
            c.sendall(b'a' * 1000)
            wait()
            c.sendall(b'b' * 1000)
            assert read(s, 2000) == b'a' * 1000 + b'b' * 1000
            d, t = pair()
            d.sendall(b'new')
            print(read(t, 3))
            for one in c, s, d, t: one.close()
            """
        let words = try mesh.run(program) {
            mesh.capture = nil
            mesh.capture = try KernelCapture(options: mesh.lab.options)
            try mesh.attach()
            try mesh.allow()
        }
        #expect(words == ["b'new'"])
        let records = try mesh.records(2)
        #expect(Set(records.map(\.bytesAccelerated)) == [2001, 4])
        #expect(try mesh.count(.accelerated) == 2 && mesh.count(.wireChanged) == 0)
        try #require(mesh.capture).uninstall()
        #expect(Files.names(in: "\(mesh.lab.bpffs)/culvert").isEmpty)
    }

    @Test func uninstallTakesOpenConnectionsBackToTCP() throws {
        try mesh.runAcrossUninstall {
            let shortcuts = try #require(mesh.capture).objects.shortcuts
            mesh.capture = nil
            try KernelCapture.uninstall(options: mesh.lab.options)
            #expect(Files.names(in: "\(mesh.lab.bpffs)/culvert").isEmpty)
            #expect(shortcuts.keys.count == 1)
        }
    }

    // MARK: Memory

    /// A direction goes by TCP as long as its reader is behind, to the last byte.
    @Test func aReaderThatCaughtUpIsHandedOverToAgain() throws {
        let program = """
            c, s = pair()
            sent = b''
            for turn in range(12):
                sent += bytes([turn]) * 100000
                c.sendall(sent[-100000:])
            wait()
            # The last byte that went by TCP makes the difference.
            assert read(s, 1199999) == sent[:-1]
            c.sendall(b'by TCP')
            assert read(s, 7) == sent[-1:] + b'by TCP'
            for turn in range(100):
                c.sendall(b'%3d' % turn)
                assert read(s, 3) == b'%3d' % turn
            for one in c, s: one.close()
            """
        let words = try mesh.run(program) {
            let lanes = try mesh.lanes()
            #expect(lanes.client == .tcp && lanes.bytes == [1_100_000, 1])
        }
        #expect(words == [])
        let record = try #require(try mesh.records(1).first)
        #expect(record.bytesSent == 1_200_306 && record.bytesAccelerated == 1_100_301)
        #expect(try mesh.count(.wireBulk) == 1 && mesh.count(.wireFirst) == 0)
    }

    /// A hand-over that finds no socket memory fails, where TCP waits. For that moment the whole machine is.
    @Test func messagesGoByTCPWhileMemoryIsShort() throws {
        let setting = "/proc/sys/net/ipv4/tcp_mem"
        let usual = try #require(Files.read(setting).value)
        defer { _ = Files.write(usual, to: setting) }
        let program = """
            c, s = pair()
            c.sendall(b'short')
            assert read(s, 5) == b'short'
            wait()
            # Every CPU has a megabyte that the kernel does not count: connections over lo hold more than that.
            others, hold = socket.create_server(('127.0.0.1', 0), backlog=64), []
            for turn in range(20):
                hold.append(socket.create_connection(others.getsockname()))
                hold[-1].setblocking(False)
                hold[-1].send(b'z' * 4000000)
            c.sendall(b'by TCP')
            assert read(s, 6) == b'by TCP'
            for one in c, s: one.close()
            """
        let words = try mesh.run(program) {
            #expect(try mesh.lanes().bytes == [5, 1])
            let most = try #require(usual.split(whereSeparator: \.isWhitespace).last)
            #expect(Files.write("1 1 \(most)", to: setting) == 0)
        }
        #expect(words == [])
        #expect(try mesh.records(1).first?.bytesAccelerated == 6)
        #expect(try mesh.count(.wireBulk) == 1)
    }

    /// P13: the receivers never read, and a direction takes what may wait unread and the sockets' own buffers hold.
    @Test(arguments: [false, true], [100, 4096, 65536, 1 << 20])
    func aStoppedReaderHoldsTheSenderBack_P13(duplex: Bool, message: Int) throws {
        let program = """
            c, s = pair()
            ways = [(c, s), (s, c)] if \(duplex ? "True" : "False") else [(c, s)]
            sent, stuck = {c: 0, s: 0}, set()
            for one in c, s: one.settimeout(0)
            while len(stuck) < len(ways):
                for sender, _ in ways:
                    try:
                        sent[sender] += sender.send(b'z' * \(message))
                        assert sent[sender] < 64 << 20, 'unbounded'
                    except BlockingIOError:
                        stuck.add(sender)
            for sender, receiver in ways:
                memory = struct.unpack('9I', receiver.getsockopt(socket.SOL_SOCKET, 55, 36))
                limit = receiver.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) + 1048576 + \(message)
                assert memory[0] <= limit, ('receive memory', memory, limit)
            wait()
            for one in c, s: one.settimeout(20)
            for sender, receiver in ways: assert len(read(receiver, sent[sender])) == sent[sender]
            for one in c, s: one.close()
            """
        let words = try mesh.run(program) {
            let lanes = try mesh.lanes()
            #expect(lanes.client == .tcp)
            #expect(1048576 < lanes.bytes[0] && lanes.bytes[0] <= 1048576 + message)
            #expect(lanes.bytes[1] <= 1048577 + message, "the byte of greeting was read")
        }
        #expect(words == [])
        #expect(try mesh.count(.wireBulk) >= 1)
    }
}
