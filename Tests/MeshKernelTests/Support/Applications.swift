import Foundation

/// Unmodified programs: what they see of a connection, as JSON.
enum Applications {
    /// Arguments: host port [bind=ADDRESS] [device=NAME] [mark=NUMBER] [protocol=NUMBER] [text=WORDS].
    /// With `text` it sends the words, half-closes, and reads the answer to its end.
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

    /// Arguments: port. Answers every connection with `PEER LOCAL|what it read`, until it is terminated.
    static let server = #"""
        import socket, sys
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind(('::', int(sys.argv[1])))
        s.listen(64)
        print('ready', flush=True)
        while True:
            c, peer = s.accept()
            c.settimeout(5)
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

/// A program that runs until it goes out of scope.
final class Background {
    private let process = Process()

    init(_ arguments: [String]) throws {
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        try process.run()
        // The program says when it is ready: nothing here waits for time to pass.
        guard output.fileHandleForReading.availableData.starts(with: Data("ready".utf8)) else {
            throw ShellFailure(description: "\(arguments.joined(separator: " ").prefix(80)) did not start")
        }
    }

    var identifier: Int32 { process.processIdentifier }

    func stop() {
        process.terminate()
        process.waitUntilExit()
    }
}
