"""Clients and upstreams of the DNS tests. Clients print one line of JSON.

    ask SERVER NAME [SERVER NAME ...]   every kind of UDP socket asks all servers, interleaved on one socket
    hostile PORT                        an upstream that answers wrongly many times before it answers right
    churn SERVER NAME ADDRESS           asks by UDP and TCP in turn, each time anew, until told on stdin
"""
import json
import socket
import struct
import sys
import threading


def encode(name):
    return b''.join(bytes([len(label)]) + label.encode() for label in name.split('.')) + b'\0'


def question(number, name, kind=1):
    return struct.pack('>HHHHHH', number, 0x0100, 1, 0, 0, 0) + encode(name) + struct.pack('>HH', kind, 1)


def address(message):
    """The last four bytes of an answer with one A record; its code when there is none."""
    count, code = struct.unpack('>H', message[6:8])[0], message[3] & 15
    return socket.inet_ntoa(message[-4:]) if count else 'code %d' % code


def canonical(peer):
    return [peer[0].replace('::ffff:', ''), peer[1]]


def ask(pairs):
    result = {'ok': True, 'problems': [], 'answers': {}}

    def check(what, got, wanted):
        if got != wanted:
            result['ok'] = False
            result['problems'].append('%s: %r, not %r' % (what, got, wanted))

    def sockets():
        for kind in ('v4', 'v6', 'mapped'):
            family = socket.AF_INET if kind == 'v4' else socket.AF_INET6
            mine = [(server, name) for server, name in pairs if (':' in server) == (kind == 'v6')]
            mine = [(('::ffff:' + s) if kind == 'mapped' else s, name) for s, name in mine]
            if mine:
                yield kind, family, mine

    for kind, family, mine in sockets():
        # One unconnected socket, all servers at once: every answer shows the server it was asked of.
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(20)
            wanted = {}
            for number, (server, name) in enumerate(mine):
                s.sendto(question(number, name), (server, 53))
                wanted[number] = server
            for _ in mine:
                message, peer = s.recvfrom(65535)
                number = struct.unpack('>H', message[:2])[0]
                server = wanted.pop(number)
                check('%s unconnected' % kind, canonical(peer), canonical((server, 53)))
                result['answers'][canonical((server, 53))[0]] = address(message)
        # One connected socket for each, then the same socket connected anew.
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(20)
            for number, (server, name) in enumerate(mine):
                s.connect((server, 53))
                check('%s getpeername' % kind, canonical(s.getpeername()), canonical((server, 53)))
                s.send(question(number, name))
                message, peer = s.recvfrom(65535)
                check('%s connected' % kind, canonical(peer), canonical((server, 53)))
                check('%s answer' % kind, address(message), result['answers'][canonical((server, 53))[0]])
        # Other ports and other datagrams are nobody's business.
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.connect((mine[0][0], 5353))
            check('%s other port' % kind, canonical(s.getpeername()), canonical((mine[0][0], 5353)))
    print(json.dumps(result), flush=True)


def hostile(port):
    """Answers like a guesser first: other ids, another name, no response, garbage, a cut message."""
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(('::', port))
    print('listening %d' % port, flush=True)
    while True:
        message, peer = s.recvfrom(65535)
        # Without EDNS the question ends the message.
        answer = message[:2] + b'\x81\x80\0\1\0\1\0\0\0\0' + message[12:]
        evil = answer + b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4' + bytes([6, 6, 6, 6])
        good = answer + b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4' + bytes([192, 0, 2, 77])
        other = bytes([message[0] ^ 1]) + evil[1:]
        renamed = evil[:13] + bytes([evil[13] ^ 1]) + evil[14:]
        for wrong in (other, renamed, evil[:2] + message[2:3] + evil[3:], b'', b'\xff' * 300, evil[:-3]):
            s.sendto(wrong, peer)
        s.sendto(good, peer)


def churn(server, name, wanted):
    """Like `churn` of traffic.py: a line with the count for every line read, the verdict at `end`."""
    count, errors, ending = [0], [], threading.Event()

    def once(number):
        kind = socket.SOCK_STREAM if number % 2 else socket.SOCK_DGRAM
        message = question(number & 0xffff, name)
        with socket.socket(socket.AF_INET, kind) as s:
            s.settimeout(8)
            s.connect((server, 53))
            if kind == socket.SOCK_DGRAM:
                s.send(message)
                return address(s.recv(512))
            s.sendall(struct.pack('>H', len(message)) + message)
            with s.makefile('rb') as answers:
                return address(answers.read(*struct.unpack('>H', answers.read(2))))

    def work():
        number = 0
        while not ending.is_set():
            number += 1
            try:
                found = once(number)
                if found != wanted:
                    errors.append(found)
            except Exception as error:
                errors.append('%s %s' % ('tcp' if number % 2 else 'udp', error))
            count[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    print(json.dumps({'event': 'running'}), flush=True)
    for line in sys.stdin:
        print(json.dumps({'event': 'count', 'asked': line.strip(), 'done': count[0]}), flush=True)
        if line.strip() == 'end':
            break
    ending.set()
    worker.join()
    print(json.dumps({'ok': not errors, 'done': count[0], 'failed': len(errors), 'errors': errors[:5]}), flush=True)


def main(arguments):
    if arguments[0] == 'ask':
        ask(list(zip(arguments[1::2], arguments[2::2])))
    elif arguments[0] == 'churn':
        churn(*arguments[1:])
    else:
        hostile(int(arguments[1]))


if __name__ == '__main__':
    main(sys.argv[1:])
