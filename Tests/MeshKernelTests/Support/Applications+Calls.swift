extension Applications {
    /// The ways a program can connect. Arguments: how host port [join=FOLDER].
    ///
    /// Connects, sends `hello`, half-closes, reads the answer to its end, all on the one socket. With `join` it enters
    /// that cgroup after the socket is made and before it connects.
    static let caller = #"""
        import ctypes, errno, json, mmap, os, select, signal, socket, struct, sys
        signal.alarm(30)
        how, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
        options = dict(a.split('=', 1) for a in sys.argv[4:])
        family = socket.AF_INET6 if ':' in host else socket.AF_INET

        def raw_address():
            if family == socket.AF_INET:
                return struct.pack('=HH4s8x', family, socket.htons(port), socket.inet_aton(host))
            return struct.pack('=HHI16sI', family, socket.htons(port), 0, socket.inet_pton(family, host), 0)

        # IORING_OP_CONNECT through the raw system calls: setup is 425 and enter 426 on every architecture.
        def uring_connect(flags):
            libc = ctypes.CDLL(None, use_errno=True)
            parameters = ctypes.create_string_buffer(120)
            ring = libc.syscall(425, 4, parameters)
            if ring < 0: raise OSError(ctypes.get_errno(), 'io_uring_setup')
            words = struct.unpack('=30I', parameters.raw)
            submissions, completions = words[0], words[1]
            sq, cq = words[10:20], words[20:30]
            populate = mmap.MAP_SHARED | 0x8000
            area = lambda size, offset: mmap.mmap(ring, size, flags=populate, offset=offset)
            sq_ring = area(sq[6] + 4 * submissions, 0)
            cq_ring = area(cq[5] + 16 * completions, 0x8000000)
            entries = area(64 * submissions, 0x10000000)
            address = ctypes.create_string_buffer(raw_address())
            entries[:48] = struct.pack(
                '=BBHiQQIIQQ', 16, flags, 0, s.fileno(), len(raw_address()), ctypes.addressof(address), 0, 0, 7, 0)
            sq_ring[sq[6]:sq[6] + 4] = struct.pack('=I', 0)
            sq_ring[sq[1]:sq[1] + 4] = struct.pack('=I', 1)
            if libc.syscall(426, ring, 1, 1, 1, None, 0) < 0: raise OSError(ctypes.get_errno(), 'io_uring_enter')
            data, outcome = struct.unpack('=Qi', cq_ring[cq[5]:cq[5] + 12])
            assert data == 7, data
            if outcome < 0: raise OSError(-outcome, 'io_uring connect')

        result = {'error': '', 'peer': '', 'local': '', 'answer': '', 'seconds': 0}
        text = b'hello'
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(10)
        if 'join' in options:
            with open(options['join'] + '/cgroup.procs', 'w') as file: file.write(str(os.getpid()))
        try:
            if how == 'plain':
                s.connect((host, port))
            elif how == 'nonblocking':
                s.setblocking(False)
                code = s.connect_ex((host, port))
                if code not in (0, errno.EINPROGRESS): raise OSError(code, 'connect')
                select.select([], [s], [], 10)
                code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code: raise OSError(code, 'connect')
                s.settimeout(10)
            elif how == 'fastopen':
                # As blocking programs do: without a cookie it waits for the connection.
                s.settimeout(None)
                text = text[s.sendto(text, 0x20000000, (host, port)):]
                s.settimeout(10)
            elif how == 'fastopen-connect':
                s.setsockopt(socket.IPPROTO_TCP, 30, 1)
                s.connect((host, port))
            elif how == 'uring':
                uring_connect(0)
            elif how == 'uring-worker':
                uring_connect(16)
            else:
                sys.exit('unknown way: ' + how)
            s.sendall(text)
            result['peer'], result['local'] = s.getpeername()[0], s.getsockname()[0]
            s.shutdown(socket.SHUT_WR)
            while True:
                data = s.recv(65536)
                if not data: break
                result['answer'] += data.decode()
        except OSError as e:
            result['error'] = errno.errorcode.get(e.errno, str(e)) if e.errno else 'timeout'
        print(json.dumps(result))
        """#

    /// Arguments: port. A server with TCP Fast Open, which gives out cookies and echoes.
    static let fastOpenServer = #"""
        import socket, sys
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_TCP, 23, 16)
        s.bind(('0.0.0.0', int(sys.argv[1])))
        s.listen(64)
        print('ready', flush=True)
        while True:
            c, _ = s.accept()
            c.settimeout(5)
            try:
                while data := c.recv(65536): c.sendall(data)
            except OSError:
                pass
            c.close()
        """#
}
