import Foundation
import MeshWire
import Testing

/// Against an implementation that shares nothing with ours: Python's h2, in a process of its own, over a socket pair.
@Suite struct HTTP2InteropTests {
    private static let hasPython: Bool = {
        let probe = Process()
        probe.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        probe.arguments = ["python3", "-c", "import h2"]
        probe.standardOutput = FileHandle.nullDevice
        probe.standardError = FileHandle.nullDevice
        guard (try? probe.run()) != nil else { return false }
        probe.waitUntilExit()
        return probe.terminationStatus == 0
    }()

    /// One peer process and our end of the socket pair.
    private final class Python {
        let process = Process()
        let socket: Int32
        private let output = Pipe()

        init(_ arguments: [String]) throws {
            var pair: [Int32] = [0, 0]
            let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
            try #require(socketpair(AF_UNIX, type, 0, &pair) == 0)
            socket = pair[0]
            // A peer that hangs fails the test instead of holding it.
            var patience = timeval(tv_sec: 20, tv_usec: 0)
            setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = ["python3", "-c", pythonPeer] + arguments
            let theirs = FileHandle(fileDescriptor: pair[1], closeOnDealloc: true)
            process.standardInput = theirs
            process.standardOutput = output
            try process.run()
            try theirs.close()
        }

        /// Ends our direction, lets the process finish its own, and returns what it said, line by line.
        func finish() -> [String] {
            shutdown(socket, Int32(SHUT_WR))
            var rest = [UInt8](repeating: 0, count: 10_000)
            while recv(socket, &rest, rest.count, 0) > 0 {}
            close(socket)
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            return text.split(separator: "\n").map(String.init)
        }

        deinit { if process.isRunning { process.terminate() } }
    }

    /// Sends all that the session has; false when the socket is gone.
    private func flush(_ session: HTTP2Session, to socket: Int32) -> Bool {
        let bytes = drain(session)
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(socket, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count <= 0 { return false }
            sent += count
        }
        return true
    }

    /// Runs the session over the socket until `isDone`, or until the peer closes.
    private func run(_ session: HTTP2Session, on socket: Int32, until isDone: () -> Bool) {
        var buffer = [UInt8](repeating: 0, count: 10_000)
        while flush(session, to: socket), !isDone() {
            let count = recv(socket, &buffer, buffer.count, 0)
            guard count > 0 else { return }
            let failure = buffer[..<count].withUnsafeBytes { session.receive($0, now: 1) }
            if let failure {
                Issue.record("\(failure)")
                return
            }
        }
    }

    /// Sends back what it gets.
    private final class Echo: HTTP2Events {
        unowned var session: HTTP2Session!
        var waiting: [Int32: [UInt8]] = [:]
        var ended: Set<Int32> = []
        var authorities: [String] = []
        var closed: [UInt32] = []

        override func headers(stream id: Int32, _ fields: HeaderBlock, endStream: Bool) {
            guard let request = try? ConnectRequest(fields) else { return session.reset(stream: id, code: 1) }
            authorities.append("\(request.authority) \(request.baggage?.service ?? "")")
            session.respond(stream: id, headers: ConnectResponse(status: 200).headerFields, endStream: false)
        }
        override func data(stream id: Int32, _ bytes: UnsafeRawBufferPointer) {
            waiting[id, default: []] += bytes
            session.resume(stream: id)
        }
        override func endOfStream(stream id: Int32) {
            ended.insert(id)
            session.resume(stream: id)
        }
        override func closed(stream: Int32, errorCode: UInt32) { closed.append(errorCode) }
        override func outgoingData(stream id: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
            let bytes = waiting[id, default: []]
            let count = min(bytes.count, buffer.count)
            buffer.copyBytes(from: bytes[..<count])
            waiting[id] = Array(bytes[count...])
            session.consumed(stream: id, bytes: count)
            let ends = count == bytes.count && ended.contains(id)
            return count == 0 && !ends ? .pause : .bytes(count, end: ends)
        }
    }

    @Test func ourServerServesPython() throws {
        try #require(Self.hasPython, "python3 with h2 is not installed: Deploy/packages --test installs it")
        let python = try Python(["client", "5", "200000"])
        let echo = Echo()
        var settings = HTTP2Settings()
        settings.streamWindow = 50_000
        let session = HTTP2Session(role: .server, settings: settings, events: echo)
        echo.session = session
        run(session, on: python.socket) { session.isFinished }
        let said = python.finish()
        #expect(said.contains("equal 5") && said.contains("done") && said.contains("pong"), "\(said)")
        #expect(said.contains("window 50000"), "\(said)")
        #expect(echo.authorities == (0..<5).map { "[::1]:\(8000 + $0) python" })
        #expect(echo.closed == [0, 0, 0, 0, 0])
        #expect(session.failure == nil)
    }

    @Test func ourClientUsesPython() throws {
        try #require(Self.hasPython, "python3 with h2 is not installed: Deploy/packages --test installs it")
        let python = try Python(["server", "0", "0"])
        let peer = Peer(isClient: true)
        let session = HTTP2Session(role: .client, settings: HTTP2Settings(), events: peer)
        peer.session = session
        peer.expectsEcho = true
        var baggage = Baggage()
        baggage.service = "swift"
        var statuses: [Int32: ConnectResponse] = [:]
        peer.onHeaders = { id, block, _ in statuses[id] = ConnectResponse(block) }
        var ids: [Int32] = []
        for port in [80, 81, 9] {
            let authority = try Authority("10.0.0.1:\(port)")
            ids.append(try session.request(ConnectRequest(authority: authority, baggage: baggage).headerFields))
        }
        let reset = try session.request(connectFields)
        peer.send(ids[0], 200_000)
        peer.send(ids[1], 3)
        peer.onData = { [unowned peer] id, count in peer.consume(id, count) }
        session.ping()
        run(session, on: python.socket) {
            if statuses[reset] != nil { session.reset(stream: reset, code: HTTP2ErrorCode.cancel) }
            return peer.stream(ids[0]).closed != nil && peer.stream(ids[1]).closed != nil && peer.pongs == 1
                && peer.stream(ids[2]).ends == 1
        }
        session.goAway()
        _ = flush(session, to: python.socket)
        let said = python.finish()
        #expect(said.contains("done") && said.contains("baggage service.name=swift"), "\(said)")
        #expect(said.contains("reset 8") && said.contains("goaway 0"), "\(said)")
        #expect(statuses[ids[0]] == ConnectResponse(status: 200, baggage: Baggage(["service.name=python"])))
        #expect(statuses[ids[2]]?.status == 503)
        #expect(peer.stream(ids[0]).received == 200_000 && peer.stream(ids[0]).isCorrect)
        #expect(peer.stream(ids[1]).received == 3 && peer.stream(ids[1]).isCorrect)
        #expect(session.failure == nil)
    }
}
