import Foundation
import Glibc
public import MeshModel
public import MeshTLS

/// Asks the node on this machine for SVIDs. Give it to an `SVIDStore`, which retries and renews.
public struct IdentityClient: CertificateSigner {
    private let path: String
    private let timeoutMilliseconds: Int64

    /// `path` is the socket that the node's `IdentityServer` listens on.
    public init(path: String, timeoutSeconds: Int = 5) {
        self.path = path
        timeoutMilliseconds = Int64(timeoutSeconds) * 1000
    }

    package init(path: String, timeoutMilliseconds: Int64) {
        self.path = path
        self.timeoutMilliseconds = timeoutMilliseconds
    }

    /// The whole exchange takes at most the timeout. It has a thread of its own: Dispatch's global queues share their
    /// few threads with Swift concurrency on Linux, and one that waits there holds up unrelated tasks.
    public func sign(_ request: CertificateRequest, identity: SPIFFEID) async throws -> SignedCertificate {
        let message = IdentityMessage.request(request.pem)
        let answer: Result<[UInt8], IdentityError> = await withCheckedContinuation { continuation in
            Thread.detachNewThread {
                do throws(IdentityError) {
                    continuation.resume(returning: .success(try exchange(message)))
                } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        }
        return try IdentityMessage.signed(answer.get())
    }

    private func exchange(_ message: [UInt8]) throws(IdentityError) -> [UInt8] {
        let deadline = UnixSocket.milliseconds() + timeoutMilliseconds
        let descriptor = try UnixSocket.connect(path)
        defer { close(descriptor) }
        var sent = 0
        while sent < message.count {
            let count = message.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count > 0 {
                sent += count
            } else if try !waitAfterFailure(descriptor, POLLOUT, deadline) {
                // A server that is too busy answers and closes without reading: the answer says so.
                break
            }
        }
        let header = try receive(descriptor, IdentityMessage.responseHeader, deadline)
        let (status, count) = try IdentityMessage.responseHeader(header[...])
        let body = try receive(descriptor, count, deadline)
        switch status {
        case .granted: return body
        case .refused: throw IdentityError(.refused, "the node refused: \(String(decoding: body, as: UTF8.self))")
        case .unavailable:
            throw IdentityError(.unavailable, "the node cannot answer now: \(String(decoding: body, as: UTF8.self))")
        }
    }

    private func receive(_ descriptor: Int32, _ wanted: Int, _ deadline: Int64) throws(IdentityError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: wanted)
        var got = 0
        while got < wanted {
            let count = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + got, $0.count - got, 0) }
            if count > 0 {
                got += count
            } else if count == 0 {
                throw IdentityError(.unavailable, "\(path): the node closed the connection without an answer")
            } else if try !waitAfterFailure(descriptor, POLLIN, deadline) {
                throw IdentityError(.unavailable, "\(path): the connection broke")
            }
        }
        return bytes
    }

    /// After a call that failed with errno: waits when it would have blocked. False when the connection is broken.
    private func waitAfterFailure(
        _ descriptor: Int32, _ event: Int32, _ deadline: Int64
    ) throws(IdentityError) -> Bool {
        let code = errno
        if code == EINTR { return true }
        guard code == EAGAIN || code == EWOULDBLOCK else { return false }
        let left = deadline - UnixSocket.milliseconds()
        var entry = pollfd(fd: descriptor, events: Int16(event), revents: 0)
        guard left > 0, poll(&entry, 1, Int32(left)) != 0 else {
            throw IdentityError(.unavailable, "\(path): no answer within \(timeoutMilliseconds) ms")
        }
        return true
    }
}
