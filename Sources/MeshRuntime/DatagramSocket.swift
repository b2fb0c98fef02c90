import CMeshSystem

/// What receiving a datagram gave.
public enum DatagramResult: Equatable, Sendable {
    /// This many bytes were placed, possibly none. `isLocal`: they came over lo.
    case bytes(Int, from: RawSocketAddress, to: RawSocketAddress, isLocal: Bool)
    case wouldBlock
    /// An earlier datagram of a connected socket was refused or could not be delivered. The socket goes on.
    case failed(StreamFailure)
}

/// A UDP socket on a core. Level-triggered: what is left over is reported again in the next turn.
public final class DatagramSocket {
    private let core: Core
    private var descriptor: Int32
    private var token: UInt64 = 0
    private let ready: (DatagramSocket) -> Void

    /// lo is the first interface of every network namespace (LOOPBACK_IFINDEX).
    private static let loopback: UInt32 = 1

    /// Takes over a nonblocking socket, and closes it when this fails.
    /// - Parameter ready: there may be something to receive. It may close the socket.
    public init(
        adopting descriptor: Int32, on core: Core, ready: @escaping (DatagramSocket) -> Void
    ) throws(SystemError) {
        self.core = core
        self.descriptor = descriptor
        self.ready = ready
        switch core.register(self, descriptor: descriptor) {
        case .success(let token): self.token = token
        case .failure(let error):
            mesh_close(descriptor)
            self.descriptor = -1
            throw error
        }
    }

    deinit { close() }

    public func close() {
        guard descriptor >= 0 else { return }
        core.closeListener(descriptor, token: token)
        descriptor = -1
    }

    /// Reports no more that there is something to receive.
    public func rest() {
        if descriptor >= 0 { core.setListener(descriptor, token: token, isEnabled: false) }
    }

    /// A descriptor of the same socket for somebody who goes on with it; nil when it is closed.
    public func duplicate() throws(SystemError) -> Int32? {
        descriptor >= 0 ? try Socket.duplicate(descriptor) : nil
    }

    /// Receives one datagram; what does not fit into `buffer` is lost. `to` (without its port) and `isLocal` are known
    /// to sockets made by `Socket.bindDatagrams`.
    public func receive(into buffer: UnsafeMutableRawBufferPointer) -> DatagramResult {
        guard descriptor >= 0 else { return .wouldBlock }
        var from = mesh_address()
        var to = mesh_address()
        var interface: UInt32 = 0
        let result = mesh_datagram_receive(descriptor, buffer.baseAddress, buffer.count, &from, &to, &interface)
        if result >= 0 {
            return .bytes(
                result, from: RawSocketAddress(from), to: RawSocketAddress(to), isLocal: interface == Self.loopback)
        }
        if result == Int(-Errno.again) { return .wouldBlock }
        return .failed(StreamFailure(errno: Int32(-result)))
    }

    /// Sends one datagram from an address of this machine, on a socket made by `Socket.bindDatagrams`. A datagram that
    /// the kernel has no room for is lost like any other; the rest is worth telling.
    public func send(
        _ bytes: UnsafeRawBufferPointer, from source: RawSocketAddress, to destination: RawSocketAddress
    ) -> StreamFailure? {
        var from = source.native
        var to = destination.native
        return failure(mesh_datagram_send(descriptor, bytes.baseAddress, bytes.count, &from, &to))
    }

    /// Sends one datagram on a connected socket.
    public func send(_ bytes: UnsafeRawBufferPointer) -> StreamFailure? {
        failure(mesh_socket_send(descriptor, bytes.baseAddress, bytes.count))
    }

    private func failure(_ result: Int) -> StreamFailure? {
        result >= 0 || result == Int(-Errno.again) || result == Int(-Errno.noBufferSpace)
            ? nil : StreamFailure(errno: Int32(-result))
    }

    func becameReady() { ready(self) }
}

extension Socket {
    /// A UDP socket that takes both IP versions (where the kernel has both) on every interface and knows by which one and to which address each
    /// datagram came. Several may share the port. (Bound to lo, it could not answer an own IPv6 address: the routes of
    /// those belong to other interfaces.)
    public static func bindDatagrams(port: UInt16) throws(SystemError) -> Int32 {
        do throws(SystemError) {
            return try bindDatagrams(port: port, ipv4: false)
        } catch {
            // A kernel without IPv6.
            guard error.code == Errno.familyNotSupported else { throw error }
            return try bindDatagrams(port: port, ipv4: true)
        }
    }

    static func bindDatagrams(port: UInt16, ipv4: Bool) throws(SystemError) -> Int32 {
        let socket = try SystemError.check(mesh_datagram_create(ipv4), "socket")
        do throws(SystemError) {
            try set(socket, MESH_OPTION_REUSE_PORT, 1, "SO_REUSEPORT")
            // Answers may have to come from an address that lo has no more than a route for.
            if ipv4 {
                try set(socket, MESH_OPTION_IPV4_PACKET_INFO, 1, "IP_PKTINFO")
                try set(socket, MESH_OPTION_IPV4_FREE_BIND, 1, "IP_FREEBIND")
            } else {
                try set(socket, MESH_OPTION_IPV6_ONLY, 0, "IPV6_V6ONLY")
                try set(socket, MESH_OPTION_IPV6_PACKET_INFO, 1, "IPV6_RECVPKTINFO")
                try set(socket, MESH_OPTION_IPV6_FREE_BIND, 1, "IPV6_FREEBIND")
            }
            var native = (ipv4 ? RawSocketAddress.v4(0, port: port) : .v6(high: 0, low: 0, port: port)).native
            try SystemError.check(mesh_socket_bind(socket, &native, ipv4), "bind to UDP port \(port)")
        } catch {
            mesh_close(socket)
            throw error
        }
        return socket
    }

    /// A UDP socket at a port that the kernel chooses at random, which receives from `remote` alone.
    /// - Parameter mark: SO_MARK.
    public static func connectDatagrams(
        to remote: RawSocketAddress, mark: UInt32? = nil
    ) throws(SystemError) -> Int32 {
        let socket = try SystemError.check(mesh_datagram_create(remote.isIPv4), "socket")
        do throws(SystemError) {
            if let mark { try setMark(socket, mark) }
            var native = remote.native
            try SystemError.check(mesh_socket_connect(socket, &native, remote.isIPv4), "connect")
        } catch {
            mesh_close(socket)
            throw error
        }
        return socket
    }
}
