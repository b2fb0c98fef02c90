import Glibc
import MeshModel
import MeshRuntime

/// A client of the test's own inside a namespace, for conversations that something happens in the middle of.
final class Client {
    private let socket: Int32

    init(in namespace: NetworkNamespace, to host: String, _ port: UInt16, mark: UInt32? = nil) throws {
        guard let address = IPAddress(host) else { throw ShellFailure(description: "\(host) is no address") }
        var options = ConnectOptions()
        options.mark = mark
        let target = RawSocketAddress(
            high: address.high, low: address.low, isIPv4: address.isIPv4, port: port)
        socket = try namespace.run { () throws(SystemError) -> Int32 in
            try Socket.connect(to: target, options: options)
        }
        guard wait(POLLOUT) & (POLLERR | POLLHUP) == 0 else {
            close()
            throw ShellFailure(description: "no connection to \(host):\(port)")
        }
    }

    func say(_ text: String) { _ = text.withCString { send(socket, $0, strlen($0), Int32(MSG_NOSIGNAL)) } }

    func finish() { shutdown(socket, Int32(SHUT_WR)) }

    /// All that comes, or the name of the error that ends it.
    func answer() -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        while wait(POLLIN) != 0 {
            let count = recv(socket, &chunk, chunk.count, 0)
            if count == 0 { return String(decoding: bytes, as: UTF8.self) }
            if count < 0 { return errno == ECONNRESET ? "ECONNRESET" : "error \(errno)" }
            bytes += chunk.prefix(count)
        }
        return "timeout"
    }

    func close() { Socket.close(socket) }

    private func wait(_ events: Int32) -> Int32 {
        var ready = pollfd(fd: socket, events: Int16(events), revents: 0)
        return poll(&ready, 1, 5000) == 1 ? Int32(ready.revents) : 0
    }
}
