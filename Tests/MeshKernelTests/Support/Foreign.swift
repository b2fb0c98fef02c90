/// Programs of somebody else, made with libbpf from Python: nothing of the code under test has a hand in them.
enum Foreign {
    private static let library = #"""
        import ctypes, os, socket, struct, sys
        bpf = ctypes.CDLL('libbpf.so.1', use_errno=True)
        SOCKMAP = 15
        def instruction(code, registers=0, offset=0, immediate=0):
            return struct.pack('<BBhi', code, registers, offset, immediate)
        MOVE, CALL, EXIT, WIDE = 0xb7, 0x85, 0x95, 0x18
        ALLOW = instruction(MOVE, 0, 0, 1) + instruction(EXIT)
        class Options(ctypes.Structure):
            _fields_ = [('size', ctypes.c_size_t), ('attempts', ctypes.c_int), ('attach', ctypes.c_int),
                        ('rest', ctypes.c_char * 128)]
        def load(kind, name, code, attach=0):
            options = Options(size=ctypes.sizeof(Options), attach=attach)
            program = bpf.bpf_prog_load(kind, name.encode(), b'GPL', code, len(code) // 8, ctypes.byref(options))
            if program < 0: sys.exit(f'loading {name}: {os.strerror(-program)}')
            return program
        def check(code, what):
            if code < 0: sys.exit(f'{what}: {os.strerror(-code)}')
            return code

        """#

    /// Arguments: program type, attach type, name, cgroup, `link` or `alone`. Attaches a program that allows everything
    /// and stays until it is stopped.
    static let attached =
        library + #"""
            kind, attach, name, cgroup, how = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
            program = load(kind, name, ALLOW, attach)
            target = os.open(cgroup, os.O_RDONLY)
            if how == 'link': check(bpf.bpf_link_create(program, target, attach, None), 'attaching')
            else: check(bpf.bpf_prog_attach(program, target, attach, 0), 'attaching')
            import signal
            print('ready', flush=True)
            signal.pause()
            """#

    /// Arguments: the pin of a connect hook's link. Replaces the link's program by one named `intruder`.
    static let replacing =
        library + #"""
            link = check(bpf.bpf_obj_get(sys.argv[1].encode()), 'opening the pin')
            check(bpf.bpf_link_update(link, load(18, 'intruder', ALLOW, 10), None), 'replacing the program')
            """#

    /// Arguments: a cgroup, then network namespaces. Prints how many programs hang at the cgroup itself, by attach type,
    /// and how many lookup programs in every namespace.
    static let census =
        library + #"""
            def count(path, kind):
                number, ids = ctypes.c_uint32(64), (ctypes.c_uint32 * 64)()
                target = os.open(path, os.O_RDONLY)
                check(bpf.bpf_prog_query(target, kind, 0, None, ids, ctypes.byref(number)), 'asking for programs')
                return number.value
            print([(kind, count(sys.argv[1], kind)) for kind in (3, 10, 11, 14, 15, 19, 20, 29, 30)])
            print([(path, count(path, 36)) for path in sys.argv[2:]])
            """#

    /// Arguments: cgroup, then `deny`, or ADDRESS PORT ADDRESS PORT: where a connection is meant to go, and where it is
    /// sent instead. At the connect hook of that family until it is stopped.
    static let connecting =
        library + #"""
            LOAD, STORE, WORD, UNLESS = 0x61, 0x63, 0xb4, 0x56
            PORT = 24
            def words(text):
                family = socket.AF_INET6 if ':' in text else socket.AF_INET
                raw = socket.inet_pton(family, text)
                return struct.unpack(f'<{len(raw) // 4}i', raw)
            cgroup, *what = sys.argv[1:]
            target = os.open(cgroup, os.O_RDONLY)
            links = []
            def attach(kind, code):
                links.append(check(bpf.bpf_link_create(load(18, 'foreign', code, kind), target, kind, None), 'attaching'))
            if what == ['deny']:
                for kind in (10, 11): attach(kind, instruction(MOVE, 0, 0, 0) + instruction(EXIT))
            else:
                old, new = words(what[0]), words(what[2])
                six = len(old) == 4
                base = 8 if six else 4
                wanted = [(base + 4 * i, word) for i, word in enumerate(old)]
                wanted.append((PORT, socket.htons(int(what[1]))))
                chosen = [(base + 4 * i, word) for i, word in enumerate(new)]
                chosen.append((PORT, socket.htons(int(what[3]))))
                write = b''.join(instruction(WORD, 2, 0, word) + instruction(STORE, 1 | 2 << 4, offset)
                                 for offset, word in chosen)
                code = write + ALLOW
                for offset, word in reversed(wanted):
                    away = (len(code) - len(ALLOW)) // 8
                    code = instruction(LOAD, 2 | 1 << 4, offset) + instruction(UNLESS, 2, away, word) + code
                attach(11 if six else 10, code)
            import signal
            print('ready', flush=True)
            signal.pause()
            """#

    /// The experiment of P12: what a receiver in a sockmap says of five bytes, as JSON; with `verdict` also with a
    /// verdict program that does nothing.
    static let sockmap =
        library + #"""
            import array, fcntl, json, select, termios
            def pair():
                listener = socket.create_server(('127.0.0.1', 0))
                client = socket.create_connection(listener.getsockname())
                server, _ = listener.accept()
                return client, server
            def pending(s):
                answer = array.array('i', [0])
                fcntl.ioctl(s, termios.FIONREAD, answer)
                return answer[0]
            def insert(table, key, s):
                k, v = ctypes.c_uint32(key), ctypes.c_uint64(s.fileno())
                check(bpf.bpf_map_update_elem(table, ctypes.byref(k), ctypes.byref(v), ctypes.c_uint64(0)), 'inserting')
            def experiment(verdict):
                table = check(bpf.bpf_map_create(SOCKMAP, b'foreign', 4, 8, 2, None), 'making a map')
                redirect = (instruction(WIDE, 2 | 1 << 4, 0, table) + instruction(0)
                            + instruction(MOVE, 3, 0, 1) + instruction(MOVE, 4, 0, 1)
                            + instruction(CALL, 0, 0, 60) + instruction(EXIT))
                check(bpf.bpf_prog_attach(load(16, 'message', redirect), table, 7, 0), 'attaching')
                if verdict: check(bpf.bpf_prog_attach(load(14, 'verdict', ALLOW), table, 38, 0), 'attaching')
                client, server = pair()
                insert(table, 1, server)
                def five():
                    client.sendall(b'12345')
                    if not select.select([server], [], [], 5)[0]: sys.exit('five bytes never came')
                    return pending(server)
                wire = five()
                server.recv(16)
                insert(table, 0, client)
                redirected = five()
                server.setblocking(False)
                r, w = os.pipe()
                try: spliced = os.splice(server.fileno(), w, 5, flags=2)
                except BlockingIOError: spliced = 0
                return [wire, redirected, spliced]
            print(json.dumps({'plain': experiment(False), 'verdict': experiment(True)}))
            """#

    /// Runs the rest of its arguments with bpf(2) refused, as a container's seccomp profile does.
    static let withoutBPF = #"""
        import ctypes, os, struct, sys
        libc = ctypes.CDLL(None, use_errno=True)
        LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
        number = {'x86_64': 321, 'aarch64': 280}[os.uname().machine]
        filters = b''.join(struct.pack('<HBBI', *f) for f in [
            (LOAD, 0, 0, 0), (EQUAL, 0, 1, number), (RETURN, 0, 0, 0x00050001), (RETURN, 0, 0, 0x7fff0000)])
        room = ctypes.create_string_buffer(filters)
        program = struct.pack('<H6xQ', 4, ctypes.addressof(room))
        libc.prctl(38, 1, 0, 0, 0)
        if libc.prctl(22, 2, program, 0, 0) != 0: sys.exit('no seccomp filter: ' + os.strerror(ctypes.get_errno()))
        os.execv(sys.argv[1], sys.argv[1:])
        """#
}
