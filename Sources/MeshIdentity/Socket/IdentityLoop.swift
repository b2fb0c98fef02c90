import Glibc
import MeshModel
import MeshTLS

/// The identity server's thread: a poll loop over its connections.
///
/// A connection reads one request, waits for the signer and writes one response, then it is closed. Nothing a peer does
/// makes the loop wait: sockets do not block, the signer works in a task and answers through the mailbox, and whatever
/// passes its deadline is closed.
final class IdentityLoop {
    private enum Phase {
        case reading
        case signing
        case writing(sent: Int)
    }

    private struct Connection {
        let number: UInt64
        let descriptor: Int32
        let namespace: UInt64
        let deadline: Int64
        /// Of the workload with that namespace.
        let identity: SPIFFEID
        var phase = Phase.reading
        /// The request as far as it came, then the response.
        var bytes: [UInt8] = []
    }

    private let listener: Int32
    private let mailbox: IdentityMailbox
    private let signer: any CertificateSigner
    private let limits: IdentityServer.Limits
    private let workload: @Sendable (UInt64) -> SPIFFEID?
    private var connections: [Connection] = []
    private var nextNumber: UInt64 = 0
    /// The listener is left alone until then: no descriptors are free.
    private var acceptAgain: Int64 = 0

    init(
        listener: Int32, mailbox: IdentityMailbox, signer: any CertificateSigner, limits: IdentityServer.Limits,
        workload: @escaping @Sendable (UInt64) -> SPIFFEID?
    ) {
        self.listener = listener
        self.mailbox = mailbox
        self.signer = signer
        self.limits = limits
        self.workload = workload
    }

    func run() {
        defer {
            for connection in connections { close(connection.descriptor) }
            close(listener)
        }
        while true {
            let ready = wait()
            guard let answers = mailbox.take() else { return }
            for answer in answers { respond(answer.bytes, to: answer.connection) }
            for number in ready.connections { work(number) }
            closeLate()
            if ready.listener { accept() }
        }
    }

    private func wait() -> (listener: Bool, connections: [UInt64]) {
        let now = UnixSocket.milliseconds()
        var entries = [pollfd(fd: mailbox.descriptor, events: Int16(POLLIN), revents: 0)]
        let accepts = connections.count < limits.connections && now >= acceptAgain
        entries.append(pollfd(fd: accepts ? listener : -1, events: Int16(POLLIN), revents: 0))
        for connection in connections {
            let events =
                switch connection.phase {
                case .reading: POLLIN
                // Only errors: what more it sends is not read.
                case .signing: Int32(0)
                case .writing: POLLOUT
                }
            entries.append(pollfd(fd: connection.descriptor, events: Int16(events), revents: 0))
        }
        var next = connections.map(\.deadline).min() ?? .max
        if now < acceptAgain { next = min(next, acceptAgain) }
        let timeout = next == .max ? -1 : max(0, next - now)
        guard poll(&entries, nfds_t(entries.count), Int32(timeout)) > 0 else { return (false, []) }
        let ready = zip(connections, entries.dropFirst(2)).filter { $1.revents != 0 }.map(\.0.number)
        return (entries[1].revents != 0, ready)
    }

    private func accept() {
        for _ in 0..<16 where connections.count < limits.connections {
            let descriptor = Glibc.accept(listener, nil, nil)
            guard descriptor >= 0 else {
                // Out of descriptors or memory: the listener would stay readable, so it is left for a moment.
                if errno != EAGAIN, errno != EINTR, errno != ECONNABORTED {
                    acceptAgain = UnixSocket.milliseconds() + 100
                }
                return
            }
            // Not accept4, which Glibc's module does not have.
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
            admit(descriptor)
        }
    }

    private func admit(_ descriptor: Int32) {
        nextNumber += 1
        let deadline = UnixSocket.milliseconds() + limits.timeoutMilliseconds
        let namespace: UInt64
        do throws(IdentityError) {
            namespace = try PeerNamespace.inode(of: descriptor)
        } catch {
            turnAway(descriptor, .refused, error.description)
            return
        }
        guard let identity = workload(namespace) else {
            turnAway(descriptor, .refused, "no workload of this node has the caller's network namespace (\(namespace))")
            return
        }
        guard connections.count(where: { $0.namespace == namespace }) < limits.connectionsPerNamespace else {
            turnAway(descriptor, .unavailable, "too many requests from this workload at once")
            return
        }
        connections.append(
            Connection(
                number: nextNumber, descriptor: descriptor, namespace: namespace, deadline: deadline,
                identity: identity))
    }

    /// A few bytes into an empty socket buffer: they fit, and if not the peer sees the connection close.
    private func turnAway(_ descriptor: Int32, _ status: IdentityMessage.Status, _ text: String) {
        let bytes = IdentityMessage.response(status, Array(text.utf8))
        _ = send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
        close(descriptor)
    }

    private func work(_ number: UInt64) {
        guard let index = connections.firstIndex(where: { $0.number == number }) else { return }
        switch connections[index].phase {
        case .reading: read(index)
        case .signing: drop(index)
        case .writing: write(index)
        }
    }

    private func read(_ index: Int) {
        var buffer = [UInt8](repeating: 0, count: 16 * 1024)
        let count = recv(connections[index].descriptor, &buffer, buffer.count, 0)
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count > 0 else {
            drop(index)
            return
        }
        connections[index].bytes += buffer[..<count]
        let bytes = connections[index].bytes
        guard bytes.count >= IdentityMessage.requestHeader else { return }
        do throws(IdentityError) {
            let length = try IdentityMessage.requestLength(bytes[..<IdentityMessage.requestHeader])
            let end = IdentityMessage.requestHeader + length
            guard bytes.count >= end else { return }
            guard bytes.count == end else { throw IdentityError(.protocolViolation, "more than one request") }
            sign(index, String(decoding: bytes[IdentityMessage.requestHeader..<end], as: UTF8.self))
        } catch {
            begin(index, IdentityMessage.response(.refused, Array(error.description.utf8)))
        }
    }

    private func sign(_ index: Int, _ pem: String) {
        let identity = connections[index].identity
        connections[index].phase = .signing
        connections[index].bytes = []
        let number = connections[index].number
        let (signer, mailbox) = (signer, mailbox)
        Task {
            mailbox.post(await IdentityLoop.answer(pem, identity, signer), for: number)
        }
    }

    private static func answer(_ pem: String, _ identity: SPIFFEID, _ signer: any CertificateSigner) async -> [UInt8] {
        func text(_ error: any Error) -> [UInt8] { Array("\(error)".utf8.prefix(1024)) }
        do {
            let request = try CertificateRequest(pem: pem)
            return IdentityMessage.granted(try await signer.sign(request, identity: identity))
        } catch let error as CertificateError {
            return IdentityMessage.response(.refused, text(error))
        } catch let error as IdentityError where error.reason == .refused {
            return IdentityMessage.response(.refused, text(error))
        } catch {
            return IdentityMessage.response(.unavailable, text(error))
        }
    }

    private func respond(_ bytes: [UInt8], to number: UInt64) {
        // Gone when it passed its deadline or hung up.
        guard let index = connections.firstIndex(where: { $0.number == number }) else { return }
        begin(index, bytes)
    }

    private func begin(_ index: Int, _ response: [UInt8]) {
        connections[index].bytes = response
        connections[index].phase = .writing(sent: 0)
        write(index)
    }

    private func write(_ index: Int) {
        guard case .writing(var sent) = connections[index].phase else { return }
        let (descriptor, bytes) = (connections[index].descriptor, connections[index].bytes)
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(descriptor, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0, errno == EAGAIN || errno == EINTR {
                connections[index].phase = .writing(sent: sent)
                return
            }
            guard count > 0 else { break }
            sent += count
        }
        drop(index)
    }

    private func closeLate() {
        let now = UnixSocket.milliseconds()
        for index in connections.indices.reversed() where connections[index].deadline <= now { drop(index) }
    }

    private func drop(_ index: Int) {
        close(connections[index].descriptor)
        connections.remove(at: index)
    }
}
