import Glibc
import MeshRuntime
import Testing

/// A namespace with a random name and nothing in it but `lo`, which is up.
private final class TestNamespace {
    let name: String
    var path: String { "/run/netns/\(name)" }

    init() throws {
        name = "culvert-rt-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try ip("netns", "add", name)
        try ip("-n", name, "link", "set", "lo", "up")
    }

    deinit { try? ip("netns", "del", name) }
}

private func ip(_ arguments: String...) throws {
    var words: [UnsafeMutablePointer<CChar>?] = (["ip"] + arguments).map { strdup($0) }
    words.append(nil)
    defer { words.forEach { free($0) } }
    var process = pid_t()
    try #require(posix_spawnp(&process, "ip", nil, nil, words, environ) == 0, "iproute2 is needed")
    var status: Int32 = -1
    while waitpid(process, &status, 0) < 0 && errno == EINTR {}
    try #require(status == 0, "ip \(arguments) failed")
}

struct NetworkNamespaceTests {
    init() throws { try #require(geteuid() == 0, "network namespaces need root") }

    @Test func socketsMadeInsideStayInside() throws {
        let made = try TestNamespace()
        let namespace = try NetworkNamespace(path: made.path)
        let home = try NetworkNamespace.current()
        var status = stat()
        try #require(stat(made.path, &status) == 0)
        #expect(namespace.inode == UInt64(status.st_ino))
        #expect(namespace.inode != home.inode)

        let listener = try namespace.run { () throws(SystemError) in try Socket.listen(.loopback) }
        #expect(try NetworkNamespace.current().inode == home.inode)
        let core = try Core(index: 0)
        final class Streams { var all: [SocketStream] = [] }
        let accepted = Streams()
        let acceptor = try Acceptor(listener: listener, on: core) { accepted.all.append($0) }
        let address = acceptor.localAddress

        let inside = try namespace.run(returningTo: home) { () throws(SystemError) in
            try Socket.connect(to: address)
        }
        let client = Recorded(SocketStream(adopting: inside, on: core, connecting: true))
        for _ in 0..<100 where accepted.all.isEmpty { core.turn(waitingAtMost: 100_000_000) }
        #expect(accepted.all.count == 1)
        #expect(client.owner.writable == 1)
        #expect(client.stream.localAddress == accepted.all.first?.remoteAddress)

        let reached = try namespace.run { () throws(SystemError) in
            try NetworkNamespace.current().inode
        }
        #expect(reached == namespace.inode)
    }

    @Test func cookiesTellNamespacesApart() throws {
        let made = try TestNamespace()
        let namespace = try NetworkNamespace(path: made.path)
        let cookie = try namespace.cookie
        #expect(cookie != 0)
        #expect(try NetworkNamespace(path: made.path).cookie == cookie)
        #expect(try NetworkNamespace.current().cookie != cookie)
    }

    @Test func anErrorInsideComesOutAndTheThreadComesBack() throws {
        let made = try TestNamespace()
        let namespace = try NetworkNamespace(path: made.path)
        let home = try NetworkNamespace.current().inode
        let error = #expect(throws: SystemError.self) {
            try namespace.run { () throws(SystemError) -> Void in throw SystemError(code: EPERM, operation: "inside") }
        }
        #expect(error?.operation == "inside")
        #expect(try NetworkNamespace.current().inode == home)
    }

    @Test func whatIsNoNamespaceIsRefusedByName() {
        let missing = #expect(throws: SystemError.self) { try NetworkNamespace(path: "/run/netns/culvert-no-such") }
        #expect(missing?.description == "open /run/netns/culvert-no-such: ENOENT (No such file or directory)")
        let file = #expect(throws: SystemError.self) { try NetworkNamespace(path: "/proc/self/ns/uts") }
        #expect(file?.description.hasPrefix("/proc/self/ns/uts is not a network namespace") == true)
        #expect(throws: SystemError.self) { try NetworkNamespace(path: "/etc/passwd") }
    }
}
