#!/usr/bin/env python3
"""An HTTP/1.1 server that tells what it received, and clients that see every byte. Clients print one JSON line.

  http11.py serve PORT NAME             answers with what came; the path's query chooses more (see `answer`)
  http11.py ask HOST PORT JSON          requests of a list, one connection: {method, path, headers, body}
  http11.py keep HOST PORT PATH COUNT   COUNT requests over one connection, which must not be closed between
  http11.py pipeline HOST PORT PATH COUNT   COUNT requests at once; answers come in their order
  http11.py chunked HOST PORT PATH      a body in chunks of many sizes there, a body in chunks back
  http11.py bulk HOST PORT PATH BYTES   BYTES there, BYTES back, both digests
  http11.py head HOST PORT PATH         HEAD, then GET on the same connection
  http11.py expect HOST PORT PATH       sends the body only after 100
  http11.py smuggle HOST PORT PATH      messages whose end is disputed; each hides a request for /smuggled
  http11.py hold HOST PORT PATH         one request, then waits for the end of the connection
  http11.py twice HOST PORT PATH FILE   one request, and once FILE is there another over the same connection
  http11.py begin HOST PORT PATH        one answer: prints a line at its first part and the verdict at its end
"""
import hashlib, json, os, socket, sys, threading, time
from urllib.parse import parse_qs, urlsplit

BLOCK = hashlib.shake_256(b"culvert").digest(1 << 20)
PATIENCE = 50


def say(**verdict):
    print(json.dumps(verdict), flush=True)


def data(count):
    return (BLOCK * (count // len(BLOCK) + 1))[:count]


class Peer:
    """A socket with what was read too far."""

    def __init__(self, sock):
        self.sock, self.held = sock, b""
        sock.settimeout(PATIENCE)

    def more(self):
        piece = self.sock.recv(1 << 18)
        if not piece:
            raise EOFError
        self.held += piece

    def line(self):
        while b"\r\n" not in self.held:
            self.more()
        line, self.held = self.held.split(b"\r\n", 1)
        return line

    def exactly(self, count):
        parts, have = [self.held[:count]], min(count, len(self.held))
        self.held = self.held[count:]
        while have < count:
            piece = self.sock.recv(min(1 << 18, count - have))
            if not piece:
                raise EOFError
            parts.append(piece)
            have += len(piece)
        return b"".join(parts)

    def head(self):
        first, fields = self.line().decode("latin1"), []
        while line := self.line():
            name, _, value = line.decode("latin1").partition(":")
            fields.append([name.lower(), value.strip()])
        return first, fields

    def body(self, fields):
        named = dict(fields)
        if named.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(self.line().split(b";")[0], 16):
                parts.append(self.exactly(size))
                self.line()
            while self.line():
                pass
            return b"".join(parts), "chunked"
        if "content-length" in named:
            return self.exactly(int(named["content-length"])), "length"
        return b"", "none"

    def response(self, method="GET"):
        """The final response: status, fields, body, framing."""
        while True:
            first, fields = self.head()
            status = int(first.split()[1])
            if status >= 200:
                break
        body, framing = (b"", "none") if method == "HEAD" else self.body(fields)
        return status, fields, body, framing


def in_chunks(body, sizes=(1, 9, 4096, 70000)):
    parts, at, turn = [], 0, 0
    while at < len(body):
        piece = body[at:at + sizes[turn % len(sizes)]]
        parts.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        at, turn = at + len(piece), turn + 1
    return b"".join(parts) + b"0\r\n\r\n"


# MARK: Server

def answer(sock, name, number, count, first, fields, body, framing):
    """?down=N: N bytes. ?chunked: in chunks. ?gate=FILE: the second half only once FILE is there."""
    method, target, _ = first.split(" ")
    query = parse_qs(urlsplit(target).query, keep_blank_values=True)
    text = json.dumps({
        "backend": name, "connection": number, "request": count, "method": method, "path": target,
        "headers": fields, "bytes": len(body), "digest": hashlib.sha256(body).hexdigest(), "framing": framing,
    }).encode()
    if "down" in query:
        text = data(int(query["down"][0]))
    head = f"HTTP/1.1 200 OK\r\nx-backend: {name}\r\n".encode()
    if "chunked" in query:
        sock.sendall(head + b"transfer-encoding: chunked\r\n\r\n" + (b"" if method == "HEAD" else in_chunks(text)))
        return
    sock.sendall(head + b"content-length: %d\r\n\r\n" % len(text))
    if method == "HEAD":
        return
    if "gate" in query:
        half = len(text) // 2
        sock.sendall(text[:half])
        while not os.path.exists(query["gate"][0]):
            time.sleep(0.005)
        text = text[half:]
    sock.sendall(text)


def attend(sock, name, number):
    peer, count = Peer(sock), 0
    peer.sock.settimeout(None)
    try:
        while True:
            first, fields = peer.head()
            print("request", name, first, flush=True)
            if any(field == "expect" for field, _ in fields):
                sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body, framing = peer.body(fields)
            count += 1
            answer(sock, name, number, count, first, fields, body, framing)
    except (EOFError, OSError):
        sock.close()


def serve(port, name):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
    print("listening", port, flush=True)
    number = 0
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number += 1
        threading.Thread(target=attend, args=(sock, name, number), daemon=True).start()


# MARK: Clients

def connect(host, port):
    return Peer(socket.create_connection((host, port), timeout=PATIENCE))


def request(path, method="GET", fields=(), body=None):
    lines = [f"{method} {path} HTTP/1.1", "host: shop.example"] + [f"{name}: {value}" for name, value in fields]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


def ending(error):
    return {EOFError: "closed", ConnectionResetError: "reset", TimeoutError: "timeout"}.get(
        type(error), type(error).__name__)


def ask(host, port, text):
    answers, peer = [], None
    for wanted in json.loads(text):
        method = wanted.get("method", "GET")
        try:
            peer = peer or connect(host, port)
            body = wanted["body"].encode() if "body" in wanted else None
            peer.sock.sendall(request(wanted["path"], method, wanted.get("headers", []), body))
            status, fields, body, _ = peer.response(method)
        except (EOFError, OSError) as error:
            answers.append({"status": 0, "end": ending(error), "text": "", "backend": "", "headers": []})
            peer = None
            continue
        echo = json.loads(body) if status == 200 and body.startswith(b"{") else {}
        answers.append({
            "status": status, "end": "", "text": body.decode("latin1").strip(), "backend": echo.get("backend", ""),
            "headers": echo.get("headers", []),
        })
        if ["connection", "close"] in fields:
            peer = None
    say(ok=True, answers=answers)


def keep(host, port, path, count):
    peer, seen = connect(host, port), {}
    for _ in range(count):
        peer.sock.sendall(request(path))
        status, fields, body, _ = peer.response()
        key = json.loads(body)["backend"] if status == 200 else str(status)
        seen[key] = seen.get(key, 0) + 1
    say(ok=sum(seen.values()) == count, **seen)


def pipeline(host, port, path, count):
    peer = connect(host, port)
    peer.sock.sendall(b"".join(request(f"{path}/{number}") for number in range(count)))
    paths = [json.loads(peer.response()[2])["path"] for _ in range(count)]
    say(ok=paths == [f"{path}/{number}" for number in range(count)], paths=paths[:4])


def chunked(host, port, path):
    peer, body = connect(host, port), data(300_000)
    head = request(path, "POST", [("transfer-encoding", "chunked")])
    whole = head + in_chunks(body)
    # Cut inside of a chunk's size line, a chunk's end and the last chunk.
    at = 0
    for cut in (len(head) + 1, len(head) + 5, len(head) + 20, len(whole) - 3, len(whole)):
        peer.sock.sendall(whole[at:cut])
        at = cut
    status, _, text, framing = peer.response()
    echo = json.loads(text)
    there = echo["digest"] == hashlib.sha256(body).hexdigest() and echo["framing"] == "chunked"
    peer.sock.sendall(request(f"{path}?chunked&down=300000"))
    _, _, back, framing = peer.response()
    say(ok=status == 200 and there and back == body and framing == "chunked", there=there, back=back == body,
        framing=framing)


def bulk(host, port, path, count):
    peer, body = connect(host, port), data(count)
    peer.sock.sendall(request(path, "POST", body=body))
    echo = json.loads(peer.response()[2])
    peer.sock.sendall(request(f"{path}?down={count}"))
    back = peer.response()[2]
    there = echo["bytes"] == count and echo["digest"] == hashlib.sha256(body).hexdigest()
    say(ok=there and hashlib.sha256(back).digest() == hashlib.sha256(body).digest(), there=there, back=len(back))


def head(host, port, path):
    peer = connect(host, port)
    peer.sock.sendall(request(path, "HEAD"))
    status, fields, _, _ = peer.response("HEAD")
    length = int(dict(fields).get("content-length", -1))
    peer.sock.sendall(request(path))
    echo = json.loads(peer.response()[2])
    say(ok=status == 200 and length > 0 and echo["method"] == "GET", status=status, length=length)


def expect(host, port, path):
    peer, body = connect(host, port), data(5000)
    peer.sock.sendall(request(path, "POST", [("expect", "100-continue"), ("content-length", len(body))]))
    first, _ = peer.head()
    peer.sock.sendall(body)
    status, _, text, _ = peer.response()
    digest = json.loads(text)["digest"]
    say(ok="100" in first and status == 200 and digest == hashlib.sha256(body).hexdigest(), first=first)


HIDDEN = b"GET /a/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def vectors(path):
    def post(fields, rest):
        return f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode() + fields + b"\r\n" + rest

    te = b"transfer-encoding: chunked\r\n"
    heads = {
        "length and chunks": post(b"content-length: 5\r\n" + te, b"0\r\n\r\n"),
        "chunks and length": post(te + b"content-length: 5\r\n", b"0\r\n\r\n"),
        "two lengths": post(b"content-length: 0\r\ncontent-length: 40\r\n", b""),
        "a list of lengths": post(b"content-length: 0, 40\r\n", b""),
        "signed length": post(b"content-length: +0\r\n", b""),
        "hexadecimal length": post(b"content-length: 0x0\r\n", b""),
        "folded field": post(b"x-one: a\r\n b\r\ncontent-length: 0\r\n", b""),
        "folded encoding": post(b"transfer-encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
        "space before colon": post(b"content-length : 0\r\n", b""),
        "unknown encoding": post(b"transfer-encoding: xchunked\r\n", b"0\r\n\r\n"),
        "encoding twice": post(te + te, b"0\r\n\r\n"),
        "chunked not last": post(b"transfer-encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        "bare CR": post(b"x-one: a\rb\r\ncontent-length: 0\r\n", b""),
        "NUL": post(b"x-one: a\0b\r\ncontent-length: 0\r\n", b""),
        "no host": f"GET {path} HTTP/1.1\r\n\r\n".encode(),
        "two hosts": f"GET {path} HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".encode(),
    }
    # The fault shows after the head, so the head may have been passed on; the hidden request may not.
    path = path.replace("/disputed", "/chunks")
    return heads | {
        "chunk size": post(te, b"zz\r\n\r\n"),
        "chunk size sign": post(te, b"-1\r\n\r\n"),
        "chunk size too large": post(te, b"10000000000000000\r\n"),
        "chunk end": post(te, b"1\r\nabc\r\n0\r\n\r\n"),
    }


def smuggle(host, port, path):
    answers = {}
    for name, message in vectors(path).items():
        peer, statuses = connect(host, port), []
        try:
            peer.sock.sendall(message + HIDDEN)
            while True:
                statuses.append(peer.response()[0])
        except (EOFError, OSError) as error:
            statuses.append(ending(error))
        answers[name] = statuses
    bad = {name: statuses for name, statuses in answers.items() if statuses not in ([400, "closed"], [400, "reset"])}
    say(ok=not bad, bad=bad, count=len(answers))


def hold(host, port, path):
    peer = connect(host, port)
    peer.sock.sendall(request(path))
    say(first=peer.response()[0])
    try:
        peer.more()
        say(ended="data")
    except (EOFError, OSError) as error:
        say(ended=ending(error))


def twice(host, port, path, gate):
    peer = connect(host, port)
    for turn in ("first", "second"):
        peer.sock.sendall(request(path))
        say(turn=turn, backend=json.loads(peer.response()[2])["backend"])
        while turn == "first" and not os.path.exists(gate):
            time.sleep(0.005)


def begin(host, port, path):
    peer = connect(host, port)
    peer.sock.sendall(request(path))
    first, fields = peer.head()
    part = peer.exactly(1000)
    say(begun=first)
    whole = part + peer.exactly(int(dict(fields)["content-length"]) - len(part))
    say(ok=whole == data(len(whole)), bytes=len(whole))


COMMANDS = {
    "serve": (serve, int, str), "ask": (ask, str, int, str), "keep": (keep, str, int, str, int),
    "pipeline": (pipeline, str, int, str, int), "chunked": (chunked, str, int, str),
    "bulk": (bulk, str, int, str, int), "head": (head, str, int, str), "expect": (expect, str, int, str),
    "smuggle": (smuggle, str, int, str), "hold": (hold, str, int, str), "begin": (begin, str, int, str),
    "twice": (twice, str, int, str, str),
}

if __name__ == "__main__":
    command, *kinds = COMMANDS[sys.argv[1]]
    command(*(kind(word) for kind, word in zip(kinds, sys.argv[2:])))
