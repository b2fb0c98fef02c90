#!/usr/bin/env python3
"""Small servers and clients for the end-to-end tests. Every command prints one JSON line as its verdict.

  traffic.py serve PORT                 one server, behaviour chosen by the connection's first byte (see `serve`)
  traffic.py greet PORT                 speaks first, as SMTP does
  traffic.py transfer HOST PORT BYTES   sends BYTES and receives BYTES at once; compares both digests
  traffic.py open HOST PORT COUNT       holds COUNT echo connections open at once, uses each, closes
  traffic.py short HOST PORT COUNT PARALLEL   COUNT connections, PARALLEL at a time, one echo each
  traffic.py churn HOST PORT PARALLEL   short connections from PARALLEL processes until told on stdin; counts what failed
  traffic.py slow HOST PORT BYTES       asks for BYTES and does not read until told on stdin, then checks them
  traffic.py greeted HOST PORT          connects, says nothing, expects the greeting
  traffic.py upload HOST PORT BYTES     sends BYTES and its end of stream; the server's digest of them is right
  traffic.py download HOST PORT BYTES   asks for BYTES, ends its own direction at once, and checks what comes
  traffic.py halfclose HOST PORT        sends, shuts down, expects the answer after its own end of stream
  traffic.py reset HOST PORT            expects the server's abort as an abort
  traffic.py abort HOST PORT            aborts; the server reports what it saw
  traffic.py probe HOST PORT SECONDS    asks the server who it sees; says ok / refused / reset / closed / timeout
  traffic.py say HOST PORT TEXT         one echo of TEXT
  traffic.py wait HOST PORT             holds a connection open and says how it ended
"""
import asyncio, hashlib, json, multiprocessing, os, queue, resource, socket, struct, sys, threading, time

CHUNK = 1 << 16
# A fixed pseudo-random block: digests find reordering and loss, and it does not compress to a pattern.
BLOCK = hashlib.shake_256(b"culvert").digest(1 << 20)


def say(**verdict):
    print(json.dumps(verdict), flush=True)


def raise_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stream(count):
    """`count` bytes of the fixed stream, in chunks."""
    at = 0
    while at < count:
        size = min(CHUNK, count - at)
        start = at % len(BLOCK)
        piece = BLOCK[start:start + size]
        if len(piece) < size:
            piece += BLOCK[:size - len(piece)]
        yield piece
        at += size


def digest(count):
    state = hashlib.sha256()
    for piece in stream(count):
        state.update(piece)
    return state.hexdigest()


def receive_exactly(peer, count):
    """Digest of the next `count` bytes, and how many came."""
    state, got = hashlib.sha256(), 0
    while got < count:
        piece = peer.recv(min(1 << 18, count - got))
        if not piece:
            break
        state.update(piece)
        got += len(piece)
    return state.hexdigest(), got


def listener(port):
    server = socket.socket(socket.AF_INET6)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    server.listen(4096)
    return server


def plain(address):
    """An IPv4-mapped address as the IPv4 address it means."""
    return address.removeprefix("::ffff:") if "." in address else address


async def serve(port):
    """First byte: e echo; t<8 bytes n> transfer n both ways; s<8 bytes n> source n; h answer after end of stream;
    r abort; a report how the client ended; w tell the client who it seems to be."""
    async def handle(reader, writer):
        try:
            kind = await reader.readexactly(1)
            if kind == b"e":
                while piece := await reader.read(CHUNK):
                    writer.write(piece)
                    await writer.drain()
            elif kind == b"s":
                count = struct.unpack("!Q", await reader.readexactly(8))[0]
                for piece in stream(count):
                    writer.write(piece)
                    await writer.drain()
            elif kind == b"h":
                rest = await reader.read(-1)
                writer.write(b"after your end: " + hashlib.sha256(rest).hexdigest().encode())
                await writer.drain()
            elif kind == b"w":
                seen = writer.get_extra_info("peername")[0], writer.get_extra_info("sockname")[0]
                writer.write((" ".join(map(plain, seen)) + "\n").encode())
                await writer.drain()
                # The client ends first: not every proxy carries a server's end that comes first (Envoy).
                await reader.read(-1)
            elif kind == b"r":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            elif kind == b"a":
                try:
                    end = await reader.read(-1)
                    say(event="client ended", how="eof", bytes=len(end))
                except ConnectionResetError:
                    say(event="client ended", how="reset")
            elif kind == b"t":
                count = struct.unpack("!Q", await reader.readexactly(8))[0]

                async def send():
                    for piece in stream(count):
                        writer.write(piece)
                        await writer.drain()

                sending = asyncio.create_task(send())
                state, got = hashlib.sha256(), 0
                while got < count:
                    piece = await reader.read(1 << 18)
                    if not piece:
                        break
                    state.update(piece)
                    got += len(piece)
                await sending
                writer.write(state.hexdigest().encode())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, sock=listener(port), limit=1 << 18)
    say(event="listening", port=port)
    async with server:
        await server.serve_forever()


def greet(port):
    server = listener(port)
    say(event="listening", port=port)
    while True:
        peer, _ = server.accept()
        peer.sendall(b"220 ready\r\n")
        if peer.recv(100):
            peer.sendall(b"250 ok\r\n")
        peer.close()


def connect(host, port, timeout=20):
    peer = socket.create_connection((host, port), timeout=timeout)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def transfer(host, port, count):
    peer = connect(host, port, 300)
    peer.sendall(b"t" + struct.pack("!Q", count))

    def send():
        for piece in stream(count):
            peer.sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    received, got = receive_exactly(peer, count)
    sender.join()
    theirs = b""
    while len(theirs) < 64 and (piece := peer.recv(64)):
        theirs += piece
    expected = digest(count)
    say(ok=received == expected and theirs.decode() == expected, received=got, down=received, up=theirs.decode(), expected=expected)


def echo_once(peer, payload):
    peer.sendall(payload)
    got = b""
    while len(got) < len(payload):
        piece = peer.recv(len(payload) - len(got))
        if not piece:
            raise ConnectionError(f"closed after {len(got)} of {len(payload)} bytes")
        got += piece
    if got != payload:
        raise ValueError("the echo differs")


def hold(host, port, count):
    raise_limit()
    peers, errors = [], []
    for index in range(count):
        try:
            peer = connect(host, port)
            peer.sendall(b"e")
            echo_once(peer, b"hello %d" % index)
            peers.append(peer)
        except Exception as error:
            errors.append(f"open {index}: {error!r}")
    say(event="open", count=len(peers))
    sys.stdin.readline()
    for index, peer in enumerate(peers):
        try:
            echo_once(peer, b"again %d" % index)
        except Exception as error:
            errors.append(f"use {index}: {error!r}")
    for peer in peers:
        peer.close()
    say(ok=not errors and len(peers) == count, open=len(peers), errors=errors[:5])


def short(host, port, count, parallel):
    raise_limit()
    lock, errors, done = threading.Lock(), [], [0]
    numbers = iter(range(count))

    def work():
        while True:
            with lock:
                index = next(numbers, None)
            if index is None:
                return
            try:
                peer = connect(host, port)
                short_echo(peer, index)
                peer.close()
                with lock:
                    done[0] += 1
            except Exception as error:
                with lock:
                    errors.append(f"{index}: {error!r}")

    threads = [threading.Thread(target=work) for _ in range(parallel)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(ok=done[0] == count and not errors, done=done[0], failed=len(errors), errors=errors[:5])


def short_echo(peer, index):
    peer.sendall(b"e")
    echo_once(peer, b"short %d" % index)


def churn(host, port, parallel):
    """Connections without a pause. Says `running` once every process had one, a line with the count for every line read,
    and the verdict at the end of its input."""
    done, failed = multiprocessing.Array("Q", parallel, lock=False), multiprocessing.Queue()
    ending = multiprocessing.Value("b", 0, lock=False)

    def work(mine):
        while not ending.value:
            try:
                peer = connect(host, port)
                short_echo(peer, done[mine])
                peer.close()
                done[mine] += 1
            except Exception as error:
                failed.put(f"{time.time():.3f} {type(error).__name__}: {error}")

    workers = [multiprocessing.Process(target=work, args=(i,), daemon=True) for i in range(parallel)]
    started = time.monotonic()
    for worker in workers:
        worker.start()
    while min(done) == 0 and failed.empty() and time.monotonic() - started < 30:
        time.sleep(0.01)
    say(event="running", done=sum(done))
    for line in sys.stdin:
        say(event="count", asked=line.strip(), done=sum(done))
        if line.strip() == "end":
            break
    ending.value = 1
    errors = []
    while any(worker.is_alive() for worker in workers) or not failed.empty():
        try:
            errors.append(failed.get(timeout=0.05))
        except queue.Empty:
            pass
    seconds = time.monotonic() - started
    say(ok=not errors, done=sum(done), failed=len(errors), rate=round(sum(done) / seconds), errors=errors[:5])


def slow(host, port, count):
    peer = connect(host, port, 300)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    peer.sendall(b"s" + struct.pack("!Q", count))
    say(event="asked")
    sys.stdin.readline()
    received, got = receive_exactly(peer, count)
    say(ok=received == digest(count), received=got)


def greeted(host, port):
    peer = connect(host, port)
    hello = peer.recv(100)
    peer.sendall(b"HELO\r\n")
    answer = peer.recv(100)
    say(ok=hello == b"220 ready\r\n" and answer == b"250 ok\r\n", greeting=hello.decode(), answer=answer.decode())


def halfclose(host, port):
    peer = connect(host, port)
    body = BLOCK[:300_000]
    peer.sendall(b"h" + body)
    peer.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := peer.recv(1000):
        answer += piece
    say(ok=answer == b"after your end: " + hashlib.sha256(body).hexdigest().encode(), answer=answer.decode())


def upload(host, port, count):
    peer = connect(host, port, 300)
    peer.sendall(b"h")
    for piece in stream(count):
        peer.sendall(piece)
    peer.shutdown(socket.SHUT_WR)
    answer = b""
    while piece := peer.recv(1000):
        answer += piece
    say(ok=answer == b"after your end: " + digest(count).encode(), answer=answer.decode())


def download(host, port, count):
    peer = connect(host, port, 300)
    peer.sendall(b"s" + struct.pack("!Q", count))
    peer.shutdown(socket.SHUT_WR)
    received, got = receive_exactly(peer, count)
    say(ok=received == digest(count) and peer.recv(1) == b"", received=got)


def reset(host, port):
    peer = connect(host, port)
    peer.sendall(b"r")
    try:
        rest = peer.recv(100)
        say(ok=False, saw="eof" if not rest else rest.decode())
    except ConnectionResetError:
        say(ok=True, saw="reset")


def abort(host, port):
    peer = connect(host, port)
    peer.sendall(b"a" + b"x" * 1000)
    time.sleep(float(os.environ.get("ABORT_DELAY", "0.3")))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    say(ok=True)


def say_text(host, port, text):
    """One echo of a given text."""
    try:
        peer = connect(host, port)
        peer.sendall(b"e")
        echo_once(peer, text.encode())
        outcome = "ok"
    except ConnectionRefusedError:
        outcome = "refused"
    except ConnectionError:
        outcome = "reset"
    except TimeoutError:
        outcome = "timeout"
    say(outcome=outcome)


def probe(host, port, seconds):
    started = time.monotonic()
    verdict = {}
    try:
        peer = connect(host, port, seconds)
        peer.sendall(b"w")
        told = b""
        while not told.endswith(b"\n") and (piece := peer.recv(200)):
            told += piece
        if told:
            seen, accepted = told.decode().split()
            verdict = {"local": plain(peer.getsockname()[0]), "remote": plain(peer.getpeername()[0]), "seen": seen,
                       "accepted": accepted}
        outcome = "ok" if told else "closed"
    except ConnectionRefusedError:
        outcome = "refused"
    except ConnectionError:
        outcome = "reset"
    except TimeoutError:
        outcome = "timeout"
    except OSError as error:
        outcome = f"error: {error.strerror}"
    say(outcome=outcome, milliseconds=round((time.monotonic() - started) * 1000), **verdict)


def wait(host, port):
    """Holds one connection open and says how it ended, and after how long."""
    peer = connect(host, port, 300)
    peer.sendall(b"e")
    echo_once(peer, b"waiting")
    say(event="open", local=peer.getsockname()[1])
    started = time.monotonic()
    try:
        outcome = "closed" if not peer.recv(1) else "data"
    except ConnectionError:
        outcome = "reset"
    say(outcome=outcome, milliseconds=round((time.monotonic() - started) * 1000))


def main(arguments):
    command, rest = arguments[0], arguments[1:]
    if command == "serve":
        raise_limit()
        return asyncio.run(serve(int(rest[0])))
    table = {"greet": (greet, [int]), "transfer": (transfer, [str, int, int]), "open": (hold, [str, int, int]),
             "short": (short, [str, int, int, int]), "churn": (churn, [str, int, int]), "upload": (upload, [str, int, int]), "download": (download, [str, int, int]), "slow": (slow, [str, int, int]), "greeted": (greeted, [str, int]),
             "halfclose": (halfclose, [str, int]), "reset": (reset, [str, int]), "abort": (abort, [str, int]),
             "probe": (probe, [str, int, float]), "wait": (wait, [str, int]),
             "say": (say_text, [str, int, str])}
    if command not in table:
        sys.exit(__doc__)
    function, types = table[command]
    function(*[kind(value) for kind, value in zip(types, rest)])


if __name__ == "__main__":
    main(sys.argv[1:])
