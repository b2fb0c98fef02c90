/// A program that plays both ends of a connection, so that a test says exactly what happened before what: the listener
/// lives in the called workload's namespace, the client in the caller's.
enum BothEnds {
    /// Arguments: the callers' namespace, the called one's. A test's own text follows it and prints what it found.
    static let prelude = #"""
        import ctypes, errno, fcntl, hashlib, os, random, select, signal, socket, struct, sys, termios, threading, time
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        def enter(name):
            with open('/run/netns/' + name) as f:
                if ctypes.CDLL(None).setns(f.fileno(), 0x40000000) != 0: raise OSError('setns')
        def listen(port=0, protocol=0):
            enter(sys.argv[2])
            s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            s.bind(('::', port))
            s.listen(64)
            s.settimeout(20)
            enter(sys.argv[1])
            return s
        listener = listen()
        port = listener.getsockname()[1]
        def dial(host='10.77.0.1', prepare=lambda s: None):
            s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
            s.settimeout(20)
            prepare(s)
            s.connect((host, port))
            return s
        def accept():
            s = listener.accept()[0]
            s.settimeout(20)
            return s
        # With the answer of a byte both ends know that the other one is enrolled.
        def pair(host='10.77.0.1', prepare=lambda s: None):
            c = dial(host, prepare)
            s = accept()
            s.sendall(b'!')
            assert c.recv(1) == b'!'
            return c, s
        def read(s, count=1 << 40):
            parts = []
            while count > 0:
                part = s.recv(min(count, 1 << 20))
                if not part: break
                parts.append(part)
                count -= len(part)
            return b''.join(parts)
        def outcome(call, *arguments):
            try:
                found = call(*arguments)
                return found if isinstance(found, int) else len(found)
            except OSError as e:
                return errno.errorcode[e.errno] if e.errno else 'timeout'
        def pending(s):
            found = bytearray(4)
            fcntl.ioctl(s, termios.FIONREAD, found)
            return struct.unpack('i', found)[0]
        # Until the test has done its part.
        def wait():
            print('ready', flush=True)
            signal.sigwait({signal.SIGUSR1})
        """# + "\n"
}
