import Foundation
import MeshModel
import Testing

@testable import MeshKernel

/// Tier T2: no byte is lost, doubled or out of order, however a connection ends and whatever its ends do.
@Suite(.serialized, .timeLimit(.minutes(3)))
struct AccelerateEndsTests {
    let mesh: AccelerateLab

    init() throws { mesh = try AccelerateLab() }

    /// Each direction in turn; 3,000 bytes wait unread when the sender ends in one of these ways.
    @Test(arguments: ["c", "s"]) func queuedBytesAreReadBeforeTheEnd_P14(sender: String) throws {
        let program = """
            def reset(one):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                one.close()
            def leave(one):
                # The process that holds the socket goes, with what it has sent.
                child = os.fork()
                if child == 0:
                    for text in b'a', b'b', b'c': one.sendall(text * 1000)
                    os.kill(os.getpid(), signal.SIGKILL)
                os.waitpid(child, 0)
                one.close()
            expected = b'a' * 1000 + b'b' * 1000 + b'c' * 1000
            for how in 'close', 'half', 'reset', 'kill':
                c, s = pair()
                sender, receiver = (c, s) if '\(sender)' == 'c' else (s, c)
                if how == 'kill':
                    leave(sender)
                else:
                    for text in b'a', b'b', b'c': sender.sendall(text * 1000)
                if how == 'close': sender.close()
                if how == 'reset': reset(sender)
                if how == 'half': sender.shutdown(socket.SHUT_WR)
                assert read(receiver, 3000) == expected, how
                print(how, outcome(receiver.recv, 10))
                if how == 'half':
                    # The answer waits in the other one's queue while its socket goes to TIME_WAIT.
                    receiver.sendall(expected)
                    receiver.close()
                    assert read(sender) == expected
                    try: sender.sendall(b'late')
                    except BrokenPipeError: print('EPIPE')
                receiver.close()
            """
        #expect(
            try mesh.run(program) == [
                "close", "0", "half", "0", "EPIPE", "reset", "ECONNRESET", "kill", "0",
            ])
        #expect(try mesh.records(4).count == 4)
    }

    /// Unread bytes of its own do not make a close a reset, as they would with TCP. What is sent to it then is refused.
    @Test func closingWithUnreadBytesIsAnEndOfStream_P14() throws {
        let program = """
            c, s = pair()
            c.sendall(b'x' * 1000)
            s.close()
            print(outcome(c.recv, 10))
            c.sendall(b'y')
            print(outcome(lambda: [c.send(b'z') for turn in range(1000) if not time.sleep(0.001)] and 0))
            """
        #expect(try mesh.run(program) == ["0", "EPIPE"])
    }

    /// Why no entry is removed while its socket lives: this kernel throws away what waits there.
    @Test func removingAnEntryLosesWhatWaits_P14() throws {
        let program = """
            c, s = pair()
            c.sendall(b'short' * 100)
            wait()
            c.sendall(b'wire')
            c.close()
            print(len(read(s)))
            """
        let words = try mesh.run(program) {
            let pins = try #require(mesh.capture).pins
            // A `culvert_end` fits in this key.
            let map = BPFMap<SIMD16<UInt32>, UInt64>(
                descriptor: try #require(BPFLink.open(pins.path("ends"))), name: "ends")
            let keys = map.keys
            #expect(keys.count == 2)
            for key in keys { map.remove(key) }
        }
        #expect(words == ["4"])
    }

    /// What TCP sends again may come in packets that begin with bytes which arrived before; the kernel by itself has them
    /// read twice. Such packets are made up here: the first two thirds of what is sent, after the last two thirds.
    @Test func bytesSentAgainAreReadOnce() throws {
        let program = """
            def checksum(data):
                data = bytes(data) + bytes(len(data) % 2)
                total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
                while total >> 16: total = (total & 0xffff) + (total >> 16)
                return struct.pack('!H', ~total & 0xffff)
            # A packet as `frame`, with other data at another place.
            def send(frame, sequence, data):
                packet, header = bytearray(frame[:34]), bytearray(frame[34:34 + (frame[46] >> 4) * 4])
                header[4:8], header[16:18] = struct.pack('!I', sequence % (1 << 32)), bytes(2)
                length = struct.pack('!H', len(header) + len(data))
                header[16:18] = checksum(packet[26:34] + b'\\0\\6' + length + header + data)
                packet[16:18], packet[24:26] = struct.pack('!H', 20 + len(header) + len(data)), bytes(2)
                packet[24:26] = checksum(packet[14:])
                with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                    raw.bind((interface, 0))
                    raw.send(packet + header + data)
            c, s = pair()
            wait()
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            tap.settimeout(20)
            for third in 10, 450:
                c.sendall(b'hello')
                frame = b''
                while not frame.endswith(b'hello') or frame[34:36] != struct.pack('!H', c.getsockname()[1]):
                    frame, (interface, *_) = tap.recvfrom(65536)
                start = struct.unpack('!I', frame[38:42])[0] + 5
                data = b'A' * third + b'B' * third + b'C' * third
                send(frame, start + third, data[third:])
                send(frame, start, data[:2 * third])
                assert read(s, 5 + 3 * third) == b'hello' + data, third
                # What these packets were ahead of, so that nothing is new to the receiver but the end.
                c.sendall(data)
                c.sendall(b'bye')
                assert read(s, 3) == b'bye'
            c.close()
            assert read(s) == b''
            """
        let words = try mesh.run(program) { try #require(mesh.capture).setAcceleration(false) }
        #expect(words == [])
    }

    /// Both ways at once: messages of every size, pauses of readers and writers, both families, before and after
    /// accept(), half-closes, and the switch now and then.
    @Test(arguments: 0..<9) func randomTransfersAreExact(turn: Int) throws {
        let seed = UInt32.random(in: 0...UInt32.max)
        let program = """
            seed = \(seed)
            chance = random.Random(seed)
            results = {}
            def write(s, name, chance, biggest):
                digest, left = hashlib.sha256(), chance.choice([0, 1, 5000, 300000, 3000000])
                total = left
                while left:
                    data = chance.randbytes(min(left, chance.randrange(1, biggest + 1)))
                    s.sendall(data)
                    digest.update(data)
                    left -= len(data)
                    if chance.random() < 0.05: select.select([], [], [], chance.random() * 0.01)
                s.shutdown(socket.SHUT_WR)
                results[name + ' wrote'] = total, digest.hexdigest()
            def receive(s, name, chance):
                digest, total, most = hashlib.sha256(), 0, chance.choice([100, 5000, 1 << 20])
                style = chance.choice(['block', 'poll', 'peek', 'all'])
                while True:
                    if style == 'poll': select.select([s], [], [], 20)
                    seen = s.recv(chance.randrange(1, most + 1), socket.MSG_PEEK) if style == 'peek' else b''
                    data = s.recv(chance.randrange(1, most + 1), socket.MSG_WAITALL if style == 'all' else 0)
                    assert data[:len(seen)] == seen[:len(data)], 'peeked something else'
                    if not data: break
                    digest.update(data)
                    total += len(data)
                    if chance.random() < 0.02: select.select([], [], [], chance.random() * 0.01)
                results[name + ' read'] = total, digest.hexdigest()
            biggest = chance.choice([100, 4000, 60000, 300000])
            c = dial(chance.choice(['10.77.0.1', 'fd00:77::1']))
            early = chance.random() < 0.5
            s = accept() if early else None
            threads = []
            def start(one, name, other):
                for call, rest in (write, (biggest,)), (receive, ()):
                    mine = random.Random(chance.random())
                    threads.append(threading.Thread(target=call, args=(one, name, mine) + rest))
                    threads[-1].start()
            start(c, 'client', s)
            if not early: s = accept()
            start(s, 'server', c)
            wait()
            for thread in threads: thread.join()
            assert results['client wrote'] == results['server read'], results
            assert results['server wrote'] == results['client read'], results
            print(results['client wrote'][0], results['server wrote'][0])
            c.close()
            s.close()
            """
        let words = try mesh.run(program) {
            if turn % 3 == 0 { try #require(mesh.capture).setAcceleration(false) }
        }
        try #require(words.count == 2, "seed \(seed): \(words)")
        let record = try #require(try mesh.records(1).first)
        #expect([record.bytesSent, record.bytesReceived].map(String.init) == words, "seed \(seed)")
    }
}
