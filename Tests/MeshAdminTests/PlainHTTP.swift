import Foundation
import Glibc

/// A connection that speaks HTTP/1.1 in plain words. Not URLSession: that brings a library which starts OpenSSL before
/// MeshTLS does, and the tests that count its allocations run in this process, too.
final class PlainHTTP: Sendable {
    struct Failure: Error {
        let what: String
    }

    private let socket: Int32

    /// Connects to a port of 127.0.0.1. Calls block, for ten seconds at most.
    init(port: Int) throws {
        socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw Failure(what: "connect: \(String(cString: strerror(errno)))") }
    }

    deinit { close(socket) }

    func send(_ text: String) throws {
        guard Glibc.send(socket, text, text.utf8.count, Int32(MSG_NOSIGNAL)) == text.utf8.count else {
            throw Failure(what: "send")
        }
    }

    /// What comes next, as it comes.
    func some() throws -> String {
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = recv(socket, &bytes, bytes.count, 0)
        guard count >= 0 else { throw Failure(what: "recv: \(String(cString: strerror(errno)))") }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    /// The answer up to the end of the connection.
    func answer() throws -> AdminServerTests.Answer {
        var text = ""
        while case let piece = try some(), !piece.isEmpty { text += piece }
        guard let end = text.range(of: "\r\n\r\n"), text.hasPrefix("HTTP/1.1 "),
            let status = Int(text.dropFirst(9).prefix(3))
        else { throw Failure(what: "no answer: \(text)") }
        let lines = text[..<end.lowerBound].components(separatedBy: "\r\n")
        let type = lines.first { $0.lowercased().hasPrefix("content-type: ") }?.dropFirst("content-type: ".count)
        return AdminServerTests.Answer(
            status: status, type: type.map(String.init), body: String(text[end.upperBound...]))
    }

    /// Runs `body` on a thread of its own: blocking one of Swift's would starve the server.
    static func off<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
        }
    }
}
