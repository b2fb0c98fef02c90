import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Tier T2: what takes no part, and what each call makes of bytes that were handed over.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct AccelerateMatrixTests {
    let mesh: AccelerateLab

    init() throws { mesh = try AccelerateLab() }

    /// P15: the table of the documentation, as this kernel has it.
    @Test func callsSeeWhatTheDocumentationSays_P15() throws {
        let program = """
            def case(name, call):
                c, s = pair()
                print(name + '=' + str(call(c, s)).replace(' ', ''))
                c.close()
                s.close()
            def peek(c, s):
                c.sendall(b'hello')
                return s.recv(10, socket.MSG_PEEK) == b'hello' and s.recv(10) == b'hello'
            def everything(c, s):
                c.sendall(b'hello')
                s.settimeout(0.5)
                return len(s.recv(10, socket.MSG_WAITALL))
            def lowat(c, s):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
                c.sendall(b'hello')
                return len(select.select([s], [], [], 1)[0]), len(s.recv(10))
            def blocked(end):
                # Of the call that waits inside the kernel, and of the next one.
                def ended(c, s):
                    def later():
                        select.select([], [], [], 0.2)
                        end(s)
                    c.settimeout(None)
                    ending = threading.Thread(target=later)
                    ending.start()
                    found = outcome(c.recv, 10), outcome(c.recv, 10)
                    ending.join()
                    return found
                return ended
            def reset(s):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                s.close()
            def halfclosed(c, s):
                c.settimeout(0)
                sent = 0
                while True:
                    try: sent += c.send(b'z' * 65536)
                    except BlockingIOError: break
                c.settimeout(None)
                c.shutdown(socket.SHUT_WR)
                answer = lambda s: s.sendall(b'%d' % (len(read(s)) - sent))
                return blocked(answer)(c, s)[0]
            def duplex(c, s):
                # One thread sends more than is taken, while the other one waits to receive.
                c.settimeout(None)
                def take():
                    select.select([], [], [], 0.2)
                    read(s, 8 << 20)
                threads = [threading.Thread(target=c.sendall, args=(b'z' * (8 << 20),)), threading.Thread(target=take)]
                for thread in threads: thread.start()
                found = outcome(c.recv, 10)
                for thread in threads: thread.join()
                return found
            def edge(c, s):
                p = select.epoll()
                p.register(s, select.EPOLLIN | select.EPOLLET)
                c.sendall(b'one')
                first, again = len(p.poll(5)), len(p.poll(0))
                c.sendall(b'two')
                return first, again, len(p.poll(5)), len(s.recv(10))
            def zerocopy(c, s):
                c.setsockopt(socket.SOL_SOCKET, 60, 1)
                c.send(b'z' * 20000, 0x4000000)
                c.settimeout(0.3)
                completion = outcome(lambda: c.recvmsg(1, 100, socket.MSG_ERRQUEUE) and 0)
                return read(s, 20000) == b'z' * 20000, completion
            def sendfile(c, s):
                wanted, sent = random.randbytes(100000), 0
                file = os.memfd_create('file')
                os.write(file, wanted)
                while sent < len(wanted): sent += os.sendfile(c.fileno(), file, sent, len(wanted) - sent)
                return read(s, len(wanted)) == wanted
            def urgent(c, s):
                c.send(b'ab', socket.MSG_OOB)
                s.settimeout(0.3)
                return s.recv(10), outcome(s.recv, 1, socket.MSG_OOB)
            def inq(c, s):
                c.sendall(b'hello')
                return pending(s)
            def splice(c, s):
                c.sendall(b'hello')
                reading, writing = os.pipe()
                s.setblocking(False)
                return outcome(lambda: os.splice(s.fileno(), writing, 10, flags=os.SPLICE_F_NONBLOCK)), len(s.recv(10))
            for name, call in dict(
                peek=peek, waitall=everything, lowat=lowat, edge=edge, zerocopy=zerocopy, sendfile=sendfile,
                urgent=urgent, inq=inq, splice=splice,
                waiting=blocked(lambda s: s.close()), reset=blocked(reset), halfclosed=halfclosed,
                duplex=duplex,
            ).items(): case(name, call)
            """
        #expect(
            try mesh.run(program) == [
                "peek=True", "waitall=5", "lowat=(1,5)", "edge=(1,0,1,6)", "zerocopy=(True,'timeout')", "sendfile=True",
                "urgent=(b'ab','timeout')", "inq=5", "splice=('EAGAIN',5)",
                "waiting=(0,0)", "reset=('EAGAIN','ECONNRESET')", "halfclosed=EAGAIN",
                "duplex=EAGAIN",
            ])
        #expect(try mesh.count(.accelerated) == 13)
    }

    /// What came by TCP is in the same queue: counted by FIONREAD, not seen by splice.
    @Test func pendingBytesAreCountedAfterTheWayBack_P12() throws {
        let program = """
            c, s = pair()
            c.sendall(b'short')
            wait()
            c.sendall(b'by wire')
            while struct.unpack('i', fcntl.ioctl(c, termios.TIOCOUTQ, b'0000'))[0]: pass
            reading, writing = os.pipe()
            s.setblocking(False)
            print(pending(s), outcome(lambda: os.splice(s.fileno(), writing, 20, flags=os.SPLICE_F_NONBLOCK)))
            print(read(s, 12))
            """
        let words = try mesh.run(program) { try #require(mesh.capture).setAcceleration(false) }
        #expect(words == ["12", "EAGAIN", "b'shortby", "wire'"])
    }

    /// The same table for bytes that came by TCP.
    @Test func callsSeeTheSameOfBytesByTCP_P15() throws {
        let program = """
            pairs = [pair() for turn in range(6)]
            wait()
            for c, s in pairs:
                c.sendall(b'hello')
                while struct.unpack('i', fcntl.ioctl(c, termios.TIOCOUTQ, b'0000'))[0]: pass
            def splice(s):
                reading, writing = os.pipe()
                s.setblocking(False)
                return outcome(lambda: os.splice(s.fileno(), writing, 10, flags=os.SPLICE_F_NONBLOCK))
            def lowat(s):
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
                return len(select.select([s], [], [], 1)[0])
            calls = dict(
                peek=lambda s: len(s.recv(10, socket.MSG_PEEK)), waitall=lambda s: len(s.recv(10, socket.MSG_WAITALL)),
                inq=pending, splice=splice, lowat=lowat, plain=lambda s: 0)
            for (c, s), (name, call) in zip(pairs, calls.items()):
                print(name + '=' + str(call(s)))
                if name != 'waitall': assert s.recv(10) == b'hello'
            c, s = pairs[-1]
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 100)
            c.sendall(b'hello')
            while struct.unpack('i', fcntl.ioctl(c, termios.TIOCOUTQ, b'0000'))[0]: pass
            s.setblocking(False)
            print('below', pending(s), outcome(s.recv, 10))
            """
        let words = try mesh.run(program) { try #require(mesh.capture).setAcceleration(false) }
        #expect(
            words == [
                "peek=5", "waitall=5", "inq=5", "splice=EAGAIN", "lowat=1", "plain=0", "below", "0", "EAGAIN",
            ])
    }

    // MARK: Who does not take part

    /// A server of MPTCP gets plain sockets from plain clients. A client of MPTCP goes through the proxy (DirectTests).
    @Test func multipathIsLeftAlone_P16() throws {
        let program = """
            for client, server in (0, 0), (0, 262):
                listener = listen(0, server)
                c = socket.socket(socket.AF_INET, socket.SOCK_STREAM, client)
                c.settimeout(20)
                c.connect(('10.77.0.1', listener.getsockname()[1]))
                s = accept()
                for turn in range(100):
                    c.sendall(b'q' * (turn + 1))
                    assert read(s, turn + 1) == b'q' * (turn + 1)
                    s.sendall(b'a' * 500)
                    assert read(c, 500) == b'a' * 500
                c.shutdown(socket.SHUT_WR)
                assert s.recv(1) == b''
                s.close()
                assert c.recv(1) == b''
                c.close()
            """
        #expect(try mesh.run(program) == [])
        #expect(try mesh.records(2).count == 2)
        #expect(try mesh.count(.direct) == 2 && mesh.count(.accelerated) == 2 && mesh.count(.accelerationRefused) == 0)
    }

    @Test func fastOpenIsLeftAlone() throws {
        try shell("ip netns exec \(mesh.lab.pod) sysctl -qw net.ipv4.tcp_fastopen=3")
        try shell("ip netns exec \(mesh.lab.out) sysctl -qw net.ipv4.tcp_fastopen=3")
        // The first connection fetches the cookie, the second one sends with its SYN.
        let program = """
            listener.setsockopt(socket.IPPROTO_TCP, 23, 16)
            for turn in range(2):
                c = socket.socket()
                c.sendto(b'first', 0x20000000, ('10.77.0.1', port))
                c.settimeout(20)
                s = accept()
                c.sendall(b'second')
                c.shutdown(socket.SHUT_WR)
                assert read(s) == b'firstsecond'
                s.sendall(b'back')
                s.close()
                assert read(c) == b'back'
                c.close()
            """
        #expect(try mesh.run(program) == [])
        let records = try mesh.records(2)
        #expect(records.map(\.bytesSent) == [11, 11] && records.map(\.bytesReceived) == [4, 4])
        #expect(try mesh.count(.accelerationRefused) == 1, "the one that sent with its SYN")
        #expect(records.last?.bytesAccelerated == 0)
    }

    /// P26: what conntrack sees of a connection whose bytes bypass it. The wire is silent for longer than conntrack
    /// remembers, but for the kernel's own probes; without them it forgets.
    @Test func silenceOnTheWireIsBroken_P26() throws {
        #expect(
            try mesh.run(
                """
                c, s = pair()
                for one in c, s:
                    print(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), one.getsockopt(6, 4))
                def own(s):
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    s.setsockopt(6, 4, 45)
                print(pair(prepare=own)[0].getsockopt(6, 4))
                """) == ["1", "300", "1", "300", "45"])
        try shell("ip netns exec \(mesh.lab.out) nft -f \(try filter())")
        try shell("ip netns exec \(mesh.lab.out) sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=2")
        try shell("ip netns exec \(mesh.lab.out) sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0")
        let program = """
            c, s = pair()
            for one in c, s:
                for option in 4, 5: one.setsockopt(6, option, 1)
                if not probes: one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
            end = time.monotonic() + 5
            while time.monotonic() < end:
                c.sendall(b'x')
                read(s, 1)
                select.select([], [], [], 0.05)
            c.settimeout(5)
            s.settimeout(5)
            c.close()
            print(outcome(read, s))
            """
        #expect(
            try mesh.run("probes = True\n" + program) == ["0"],
            "the FIN was dropped: conntrack had forgotten the connection")
        #expect(
            try mesh.run("probes = False\n" + program) == ["timeout"],
            "the FIN came without a probe: this filter forgets nothing, and what is above proves nothing")
    }

    private func filter() throws -> String {
        let path = "\(mesh.lab.options.runtimeDirectory)/filter"
        try """
        table inet t {
            chain c {
                type filter hook input priority 0
                ct state invalid drop
                ct state new tcp flags & (syn | ack) != syn drop
            }
        }

        """.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }
}
