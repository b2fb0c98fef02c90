#!/usr/bin/env python3
"""An HBONE peer for the end-to-end tests, good and bad. Prints one JSON line.

  hbone.py connect HOST AUTHORITY [--cert C --key K] [--method M] [--no-authority] [--header-bytes N] [--tls12] [--no-alpn]
      TLS to HOST:15008, one CONNECT, one echo through it if it is answered 200
  hbone.py garbage HOST        bytes that are no TLS; how it ends
  hbone.py silent HOST         connects and says nothing; how it ends and after how long
  hbone.py mute HOST --cert C --key K   completes the handshake and says nothing
"""
import argparse, json, os, socket, ssl, time

import h2.config, h2.connection, h2.events, h2.settings


def say(**verdict):
    print(json.dumps(verdict), flush=True)


def wait_for_end(peer, started):
    try:
        while True:
            piece = peer.recv(4096)
            if not piece:
                return say(ended="closed", seconds=round(time.monotonic() - started, 1))
    except TimeoutError:
        say(ended="never", seconds=round(time.monotonic() - started, 1))
    except (ConnectionError, ssl.SSLError) as error:
        say(ended="reset", seconds=round(time.monotonic() - started, 1), error=str(error))


def secure(arguments, peer):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if arguments.tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if not arguments.no_alpn:
        context.set_alpn_protocols(["h2"])
    if arguments.cert:
        context.load_cert_chain(arguments.cert, arguments.key)
    return context.wrap_socket(peer)


def connect(arguments, peer):
    tls = secure(arguments, peer)
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False))
    connection.initiate_connection()
    headers = [(":method", arguments.method)]
    if not arguments.no_authority:
        headers.append((":authority", arguments.authority))
    if arguments.method != "CONNECT":
        headers += [(":scheme", "http"), (":path", "/")]
    if arguments.header_bytes:
        headers += [(f"x-fill-{i}", "y" * 4000) for i in range(arguments.header_bytes // 4000)]
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, headers)
    tls.sendall(connection.data_to_send())
    status, data = None, b""
    while True:
        piece = tls.recv(65536)
        if not piece:
            return say(status=status, ended="closed", data=data.decode(errors="replace"))
        for event in connection.receive_data(piece):
            if isinstance(event, h2.events.ResponseReceived):
                status = int(dict(event.headers)[b":status"])
                if status != 200:
                    return say(status=status)
                connection.send_data(stream, b"ehello through the tunnel")
            elif isinstance(event, h2.events.DataReceived):
                data += event.data
                if data == b"hello through the tunnel":
                    return say(status=status, data=data.decode())
            elif isinstance(event, h2.events.StreamReset):
                return say(status=status, ended="stream reset", code=int(event.error_code))
            elif isinstance(event, h2.events.StreamEnded):
                return say(status=status, ended="stream end", data=data.decode(errors="replace"))
            elif isinstance(event, h2.events.ConnectionTerminated):
                return say(status=status, ended="goaway", code=int(event.error_code))
        tls.sendall(connection.data_to_send())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["connect", "garbage", "silent", "mute"])
    parser.add_argument("host")
    parser.add_argument("authority", nargs="?", default="")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--method", default="CONNECT")
    parser.add_argument("--no-authority", action="store_true")
    parser.add_argument("--header-bytes", type=int, default=0)
    parser.add_argument("--tls12", action="store_true")
    parser.add_argument("--no-alpn", action="store_true")
    parser.add_argument("--timeout", type=float, default=30)
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        peer = socket.create_connection((arguments.host, 15008), timeout=arguments.timeout)
        if arguments.command == "garbage":
            peer.sendall(os.urandom(4096))
            return wait_for_end(peer, started)
        if arguments.command == "silent":
            return wait_for_end(peer, started)
        if arguments.command == "mute":
            return wait_for_end(secure(arguments, peer), started)
        connect(arguments, peer)
    except (OSError, ssl.SSLError) as error:
        say(error=str(error), kind=type(error).__name__)


if __name__ == "__main__":
    main()
