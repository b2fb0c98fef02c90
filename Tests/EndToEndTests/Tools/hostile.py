#!/usr/bin/env python3
"""Peers that mean harm, against port 15008 of HOST. Every command prints one JSON line as its verdict.

  hostile.py dribble HOST                    a ClientHello byte by byte; how it ends
  hostile.py flood KIND HOST AUTHORITY       frames without end: ping, settings, reset, continuation, window, empty
  hostile.py fuzz HOST AUTHORITY SEED COUNT  COUNT sessions of random bytes after a good handshake
  hostile.py halfopen HOST AUTHORITY COUNT   COUNT connections that say nothing, beside a good session that is used
  hostile.py phases HOST AUTHORITY COUNT     COUNT connections aborted, each in the next of eight phases
  hostile.py raw HOST PORT                   a plain connection; how it ends
All but `dribble` and `raw` want --cert and --key of a peer of the mesh.
"""
import argparse, random, resource, select, socket, ssl, struct, threading, time

import h2.config, h2.connection, h2.events
from hpack import Encoder

from hbone import say, wait_for_end

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def connect_block(authority):
    return Encoder().encode([(":method", "CONNECT"), (":authority", authority)])


def dial(arguments, port=15008):
    return socket.create_connection((arguments.host, port), timeout=arguments.timeout)


def context(arguments):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.set_alpn_protocols(["h2"])
    if arguments.cert:
        made.load_cert_chain(arguments.cert, arguments.key)
    return made


def abort(peer):
    """RST instead of FIN."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class Session:
    """A good HBONE session with one echo stream."""

    def __init__(self, arguments):
        self.tls = context(arguments).wrap_socket(dial(arguments))
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream, [(":method", "CONNECT"), (":authority", arguments.authority)])
        self.flush()
        self.received = b""
        self.first = True

    def flush(self):
        self.tls.sendall(self.h2.data_to_send())

    def pump(self):
        """Events of the next piece."""
        piece = self.tls.recv(65536)
        if not piece:
            raise ConnectionError("the session was closed")
        events = self.h2.receive_data(piece)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.received += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return events

    def accepted(self):
        while True:
            for event in self.pump():
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                    if status != 200:
                        raise ConnectionError(f"status {status}")
                    return self

    def echo(self, text):
        # The server of traffic.py takes the first byte as the order to echo.
        self.h2.send_data(self.stream, (b"e" if self.first else b"") + text)
        self.first = False
        self.flush()
        self.received = b""
        while len(self.received) < len(text):
            self.pump()
        if self.received != text:
            raise ValueError("the echo differs")


def dribble(arguments):
    peer = dial(arguments)
    hello = ssl.MemoryBIO()
    machine = context(arguments).wrap_bio(ssl.MemoryBIO(), hello)
    try:
        machine.do_handshake()
    except ssl.SSLWantReadError:
        pass
    started = time.monotonic()
    try:
        for byte in hello.read():
            peer.sendall(bytes([byte]))
            if select.select([peer], [], [], 0.1)[0]:
                break
    except ConnectionError:
        return say(ended="reset", seconds=round(time.monotonic() - started, 1))
    wait_for_end(peer, started)


def flood(arguments):
    tls = context(arguments).wrap_socket(dial(arguments))
    block = connect_block(arguments.authority)

    def pieces():
        yield PREFACE + frame(SETTINGS, 0, 0)
        stream = 1
        if arguments.kind == "continuation":
            yield frame(HEADERS, 0, 1, block)
        if arguments.kind == "empty":
            yield frame(HEADERS, END_HEADERS, 1, block)
        while True:
            many = b""
            for _ in range(256):
                if arguments.kind == "ping":
                    many += frame(PING, 0, 0, b"12345678")
                elif arguments.kind == "settings":
                    many += frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 65535))
                elif arguments.kind == "reset":
                    many += frame(HEADERS, END_HEADERS, stream, block) + frame(RST, 0, stream, struct.pack("!I", 8))
                    stream += 2
                elif arguments.kind == "continuation":
                    many += frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b")
                elif arguments.kind == "window":
                    many += frame(WINDOW, 0, 0, struct.pack("!I", 1 << 24))
                elif arguments.kind == "empty":
                    many += frame(DATA, 0, 1)
            yield many

    sent, code, received, parser = 0, None, b"", b""
    started = time.monotonic()
    tls.settimeout(0.0)
    ended = "never"
    try:
        for piece in pieces():
            rest = memoryview(piece)
            while rest:
                if time.monotonic() - started > arguments.timeout:
                    return say(ended="never", sent=sent)
                readable, writable, _ = select.select([tls], [tls], [], 1)
                # Reading too: a flood whose answers nobody takes would only fill the socket.
                try:
                    while piece_in := tls.recv(65536):
                        parser += piece_in
                        while len(parser) >= 9 and len(parser) >= 9 + int.from_bytes(parser[:3], "big"):
                            size = int.from_bytes(parser[:3], "big")
                            if parser[3] == 7:
                                code = int.from_bytes(parser[13:17], "big")
                            parser = parser[9 + size:]
                    ended = "closed"
                    return say(ended=ended, code=code, sent=sent)
                except ssl.SSLWantReadError:
                    pass
                if writable:
                    try:
                        count = tls.send(rest[:16384])
                        sent += count
                        rest = rest[count:]
                    except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                        pass
    except (ConnectionError, ssl.SSLError) as error:
        say(ended="reset", code=code, sent=sent, error=str(error))


def fuzz_bytes(numbers, authority):
    """One session's worth: noise, noise after a preface, frames with random fields, or a good start cut and bent."""
    shape = numbers.randrange(4)
    if shape == 0:
        return numbers.randbytes(numbers.randrange(1, 4096))
    text = PREFACE + frame(SETTINGS, 0, 0)
    if shape == 1:
        return text + numbers.randbytes(numbers.randrange(1, 4096))
    if shape == 2:
        for _ in range(numbers.randrange(1, 40)):
            text += frame(
                numbers.randrange(12), numbers.randrange(256), numbers.choice([0, 1, 1, 3, 2, numbers.getrandbits(31)]),
                numbers.randbytes(numbers.choice([0, 4, 5, 8, numbers.randrange(300)])))
        return text
    good = bytearray(
        text + frame(HEADERS, END_HEADERS, 1, connect_block(authority)) + frame(DATA, 0, 1, b"e" + numbers.randbytes(500)))
    for _ in range(numbers.randrange(1, 9)):
        good[numbers.randrange(len(good))] = numbers.randrange(256)
    return bytes(good)


def fuzz(arguments):
    lock, outcomes = threading.Lock(), {}
    rounds = iter(range(arguments.count))

    def work():
        while True:
            with lock:
                index = next(rounds, None)
            if index is None:
                return
            outcome = "ended"
            try:
                tls = context(arguments).wrap_socket(dial(arguments))
                tls.sendall(fuzz_bytes(random.Random(f"{arguments.seed}/{index}"), arguments.authority))
                # Half of them say that no more comes; the others wait for what the proxy does of itself, not for ever:
                # a bent frame may well have been a good one.
                if index % 2:
                    tls.unwrap()
                tls.settimeout(0.5)
                while tls.recv(65536):
                    pass
            except TimeoutError:
                outcome = "open"
            except (OSError, ssl.SSLError):
                pass
            with lock:
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    say(ok=sum(outcomes.values()) == arguments.count, seed=arguments.seed, **outcomes)


def halfopen(arguments):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    good = Session(arguments).accepted()
    good.echo(b"before")
    peers, refused = [], 0
    for index in range(arguments.count):
        try:
            peers.append(dial(arguments))
        except OSError:
            refused += 1
        if index % 200 == 199:
            good.echo(b"during %d" % index)
    good.echo(b"after")
    # What was over the bound was reset; what was within it stays open until its handshake is overdue.
    open_now = list(peers)
    deadline = time.monotonic() + arguments.timeout
    ended = 0
    while open_now and time.monotonic() < deadline:
        poller = select.poll()
        table = {peer.fileno(): peer for peer in open_now}
        for descriptor in table:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(1000):
            peer = table[descriptor]
            try:
                if peer.recv(100):
                    continue
            except ConnectionError:
                pass
            ended += 1
            peer.close()
            open_now.remove(peer)
    good.echo(b"at the end")
    say(ok=not open_now, refused=refused, ended=ended, open=len(open_now))


def phase(arguments, number):
    peer = dial(arguments)
    if number == 0:
        return abort(peer)
    if number == 1:
        peer.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        return abort(peer)
    tls = context(arguments).wrap_socket(peer)
    if number == 2:
        return abort(tls)
    tls.sendall(PREFACE + frame(SETTINGS, 0, 0))
    if number == 3:
        return abort(tls)
    tls.sendall(frame(HEADERS, END_HEADERS, 1, connect_block(arguments.authority)))
    if number == 4:
        return abort(tls)
    tls.close()
    session = Session(arguments).accepted()
    if number == 5:
        return abort(session.tls)
    session.echo(b"x" * 1000)
    if number == 6:
        # Asks for far more than it reads.
        session.h2.send_data(session.stream, b"y" * 16000)
        session.flush()
        return abort(session.tls)
    session.h2.end_stream(session.stream)
    session.flush()
    abort(session.tls)


def phases(arguments):
    errors = []
    for index in range(arguments.count):
        try:
            phase(arguments, index % 8)
        except (OSError, ssl.SSLError, ValueError) as error:
            errors.append(f"{index}: {error!r}")
    say(ok=not errors, count=arguments.count, errors=errors[:5])


def raw(arguments):
    started = time.monotonic()
    try:
        peer = dial(arguments, int(arguments.port))
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
    except OSError as error:
        return say(ended="refused", error=str(error))
    wait_for_end(peer, started)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--timeout", type=float, default=30)
    commands = parser.add_subparsers(required=True)
    for function, words in [
            (dribble, "host"), (flood, "kind host authority"), (fuzz, "host authority seed count"),
            (halfopen, "host authority count"), (phases, "host authority count"), (raw, "host port")]:
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        for word in words.split():
            command.add_argument(word, type=int if word in ("seed", "count") else str)
    arguments = parser.parse_args()
    try:
        arguments.function(arguments)
    except (OSError, ssl.SSLError) as error:
        say(ok=False, error=str(error), kind=type(error).__name__)


main()
