import Glibc
import MeshRuntime
import Testing

/// Messages and descriptors between two ends of a path.
@Suite struct PacketSocketTests {
    private let folder: String
    private var path: String { "\(folder)/socket" }

    init() throws {
        var template = Array("/tmp/packetXXXXXX".utf8CString)
        folder = try #require(mkdtemp(&template).map { String(cString: $0) })
    }

    private func withPair(_ body: (_ one: PacketSocket, _ other: PacketSocket) throws -> Void) throws {
        defer {
            unlink(path)
            rmdir(folder)
        }
        let listener = try PacketSocket.listen(path)
        let one = try #require(try PacketSocket.connect(path))
        try body(one, try #require(try listener.accept()))
    }

    @Test func messagesStayApartAndCarryOpenFiles() throws {
        try withPair { one, other in
            var pipe: [Int32] = [-1, -1]
            try #require(Glibc.pipe(&pipe) == 0)
            try one.send("first")
            try one.send("second", descriptors: [pipe[1], pipe[1]])
            close(pipe[1])
            let first = try #require(try other.receive())
            #expect(first.text == "first" && first.descriptors.isEmpty)
            let second = try #require(try other.receive())
            #expect(second.text == "second" && second.descriptors.count == 2)
            // They are the same open file: what is written to them comes out of the pipe, and it ends with the last.
            for descriptor in second.descriptors {
                #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
                #expect(write(descriptor, "x", 1) == 1)
                close(descriptor)
            }
            var bytes = [UInt8](repeating: 0, count: 8)
            #expect(read(pipe[0], &bytes, 8) == 2)
            #expect(read(pipe[0], &bytes, 8) == 0)
            close(pipe[0])
        }
    }

    @Test func bothEndsKnowTheOther() throws {
        try withPair { one, other in
            for end in [one, other] {
                let peer = try end.peer
                #expect(peer.user == geteuid() && peer.process == getpid())
            }
            var status = stat()
            #expect(lstat(path, &status) == 0 && status.st_mode & 0o777 == 0o600)
        }
    }

    @Test func theEndIsSeenAndPatienceRunsOut() throws {
        try withPair { one, other in
            try other.setPatience(milliseconds: 1)
            #expect(throws: SystemError.self) { try other.receive() }
            try other.setPatience(milliseconds: nil)
            try one.send("last")
            one.shut()
            #expect(try other.receive()?.text == "last")
            #expect(try other.receive() == nil)
            #expect(throws: SystemError.self) { try other.send("nobody") }
        }
    }

    @Test func aFileThatNobodyListensOnIsReplaced() throws {
        defer { rmdir(folder) }
        #expect(try PacketSocket.connect(path) == nil)
        var listener: PacketSocket? = try PacketSocket.listen(path)
        #expect(try PacketSocket.connect(path) != nil)
        listener = nil
        #expect(try PacketSocket.connect(path) == nil, "\(String(describing: listener))")
        let next = try PacketSocket.listen(path)
        #expect(try PacketSocket.connect(path) != nil)
        _ = try next.accept()
        next.shut()
        #expect(try next.accept() == nil)
        unlink(path)
    }
}
