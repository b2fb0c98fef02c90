import Foundation

/// Unmodified programs: what they see of a connection, as JSON.
enum Applications {
    /// Arguments: host port [bind=ADDRESS] [device=NAME] [mark=NUMBER] [protocol=NUMBER] [send=WORDS] [text=WORDS].
    /// With `send` it sends the words and goes; with `text` it sends, half-closes, and reads the answer to its end.
    static let client = #"""
        import json, socket, sys, time
        host, port = sys.argv[1], int(sys.argv[2])
        options = dict(a.split('=', 1) for a in sys.argv[3:])
        family = socket.AF_INET6 if ':' in host else socket.AF_INET
        s = socket.socket(family, socket.SOCK_STREAM, int(options.get('protocol', 0)))
        s.settimeout(5)
        if 'mark' in options: s.setsockopt(socket.SOL_SOCKET, 36, int(options['mark']))
        if 'device' in options: s.setsockopt(socket.SOL_SOCKET, 25, options['device'].encode())
        if 'bind' in options: s.bind((options['bind'], 0))
        result = {'error': '', 'peer': '', 'local': '', 'answer': ''}
        start = time.monotonic()
        try:
            s.connect((host, port))
            result['peer'], result['local'] = s.getpeername()[0], s.getsockname()[0]
            if 'send' in options: s.sendall(options['send'].encode())
            if 'text' in options:
                s.sendall(options['text'].encode())
                s.shutdown(socket.SHUT_WR)
                while True:
                    data = s.recv(65536)
                    if not data: break
                    result['answer'] += data.decode()
        except OSError as e:
            import errno
            result['error'] = errno.errorcode.get(e.errno, str(e)) if e.errno else 'timeout'
        result['seconds'] = time.monotonic() - start
        print(json.dumps(result))
        """#

    /// Arguments: host port. Says that it is connected, and then how the connection ended.
    static let holder = #"""
        import errno, socket, sys
        s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60)
        s.sendall(b'x')
        print('ready', flush=True)
        try:
            while s.recv(65536): pass
            print('closed')
        except OSError as e:
            print(errno.errorcode.get(e.errno, str(e)) if e.errno else 'timeout')
        """#

    /// Arguments: port. Answers every connection with `PEER LOCAL|what it read`, until it is terminated.
    static let server = #"""
        import socket, sys, threading
        def answer(c, peer):
            c.settimeout(60)
            data = b''
            try:
                while True:
                    more = c.recv(65536)
                    if not more: break
                    data += more
                c.sendall(('%s %s|' % (peer[0], c.getsockname()[0])).encode() + data)
            except OSError:
                pass
            c.close()
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        address = ('::' if dual else '', int(sys.argv[1]))
        s = socket.create_server(address, family=family, backlog=64, dualstack_ipv6=dual)
        print('ready', flush=True)
        while True:
            threading.Thread(target=answer, args=s.accept(), daemon=True).start()
        """#
}

/// What the client program saw.
struct Connection: Decodable {
    let error: String
    let peer: String
    let local: String
    let answer: String
    let seconds: Double
}
