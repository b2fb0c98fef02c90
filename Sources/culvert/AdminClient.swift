import Foundation
import MeshModel

/// Why the local daemon could not be asked.
struct AdminClientFailure: Error, Hashable, CustomStringConvertible {
    let description: String
}

/// Asks a daemon's admin port: one HTTP/1.1 GET a connection, nothing kept.
struct AdminClient {
    struct Response: Hashable {
        let status: Int
        let body: Data
    }

    /// For the whole of connecting, and for each read.
    private static let timeoutSeconds = 5
    /// A snapshot of a large mesh is some tens of megabytes.
    private static let maximumBytes = 512 * 1024 * 1024

    let address: SocketAddress

    func get(_ path: String) throws(AdminClientFailure) -> Response {
        let socket = try connect()
        defer { close(socket) }
        let request = "GET \(path) HTTP/1.1\r\nHost: \(address)\r\nConnection: close\r\n\r\n"
        try send(Data(request.utf8), on: socket)
        return try AdminClient.parse(try receive(on: socket))
    }

    private func connect() throws(AdminClientFailure) -> Int32 {
        let family = address.ip.isIPv4 ? AF_INET : AF_INET6
        let socket = Foundation.socket(family, Int32(SOCK_STREAM.rawValue) | O_CLOEXEC, 0)
        guard socket >= 0 else { throw failure("cannot make a socket") }
        // On Linux the time to send bounds connecting too.
        var limit = timeval(tv_sec: AdminClient.timeoutSeconds, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(socket, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        guard withSystemAddress({ Foundation.connect(socket, $0, $1) }) == 0 else {
            let failure = failure("cannot connect")
            close(socket)
            throw failure
        }
        return socket
    }

    private func withSystemAddress(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        func call<T>(_ value: T) -> Int32 {
            withUnsafePointer(to: value) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<T>.size)) }
            }
        }
        if address.ip.isIPv4 {
            var system = sockaddr_in()
            system.sin_family = sa_family_t(AF_INET)
            system.sin_port = address.port.bigEndian
            system.sin_addr.s_addr = UInt32(truncatingIfNeeded: address.ip.low).bigEndian
            return call(system)
        }
        var system = sockaddr_in6()
        system.sin6_family = sa_family_t(AF_INET6)
        system.sin6_port = address.port.bigEndian
        withUnsafeMutableBytes(of: &system.sin6_addr) { bytes in
            bytes.storeBytes(of: address.ip.high.bigEndian, as: UInt64.self)
            bytes.storeBytes(of: address.ip.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        return call(system)
    }

    private func send(_ data: Data, on socket: Int32) throws(AdminClientFailure) {
        let sent = data.withUnsafeBytes {
            Foundation.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        guard sent == data.count else { throw failure("cannot send") }
    }

    private func receive(on socket: Int32) throws(AdminClientFailure) -> Data {
        var all = Data()
        var chunk = [UInt8](repeating: 0, count: 256 * 1024)
        while true {
            let count = recv(socket, &chunk, chunk.count, 0)
            if count == 0 { return all }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failure("no answer") }
            all.append(contentsOf: chunk[..<count])
            guard all.count <= AdminClient.maximumBytes else {
                throw AdminClientFailure(description: "\(address) answered more than \(AdminClient.maximumBytes) bytes")
            }
        }
    }

    private func failure(_ what: String) -> AdminClientFailure {
        let cause = errno == EAGAIN ? "timed out" : String(cString: strerror(errno))
        return AdminClientFailure(description: "\(what) to \(address): \(cause)")
    }

    /// A response that ends with its connection: the status line, fields, and the rest is the body.
    static func parse(_ data: Data) throws(AdminClientFailure) -> Response {
        let garbage = AdminClientFailure(description: "the answer is not HTTP")
        guard let end = data.firstRange(of: Data("\r\n\r\n".utf8)) else { throw garbage }
        let lines = String(decoding: data[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        let words = lines[0].split(separator: " ", maxSplits: 2)
        guard words.count >= 2, words[0].hasPrefix("HTTP/1."), let status = Int(words[1]) else { throw garbage }
        let body = data[end.upperBound...]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
            guard parts.count == 2, parts[0].lowercased() == "content-length", let length = Int(parts[1]) else {
                continue
            }
            guard body.count == length else { throw AdminClientFailure(description: "the answer was cut off") }
        }
        return Response(status: status, body: Data(body))
    }
}
