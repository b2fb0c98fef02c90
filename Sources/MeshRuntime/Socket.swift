import CMeshSystem

/// How a listening socket is made.
public struct ListenOptions: Hashable, Sendable {
    /// Several sockets share the address, one a core.
    public var reusePort = false
    /// Takes connections to any address that routing or `sk_lookup` brings here (CAP_NET_ADMIN).
    public var transparent = false
    /// An IPv6 listener takes IPv4 too; on the unspecified address only. On a kernel booted without IPv6 it then takes
    /// IPv4 alone.
    public var dualStack = true
    /// Connections waiting to be accepted; the kernel cuts it to net.core.somaxconn.
    public var backlog: Int32 = 4096
    /// SO_MARK of the listener, and of what it accepts unless tcp_fwmark_accept says otherwise.
    public var mark: UInt32?

    public init() {}
}

/// How a connection is made.
public struct ConnectOptions: Sendable {
    /// The address to come from; with port 0 the kernel takes one when it knows the destination, so that the ports of
    /// one address are not exhausted by many destinations.
    public var source: RawSocketAddress?
    /// `source` may be one that a finished connection still occupies.
    public var reuseAddress = false
    /// `source` need not be an address of this machine (CAP_NET_ADMIN).
    public var transparent = false
    public var mark: UInt32?
    /// Send and receive on this device only (CAP_NET_RAW).
    public var device: StaticString?
    public var noDelay = true
    /// Probes after 180 s of silence, every 180 s, nine times.
    public var keepAlive = true

    public init() {}
}

/// Makes sockets: TCP, nonblocking, close-on-exec, without SIGPIPE.
public enum Socket {
    /// A listening socket. What it accepts inherits TCP_NODELAY, keep-alive and SO_LINGER, which saves system calls on
    /// each.
    public static func listen(
        _ address: RawSocketAddress, options: ListenOptions = ListenOptions()
    ) throws(SystemError) -> Int32 {
        let socket: Int32
        do throws(SystemError) {
            socket = try create(ipv4: address.isIPv4)
        } catch {
            guard error.code == Errno.familyNotSupported, options.dualStack, address.isUnspecifiedIPv6 else {
                throw error
            }
            return try listen(.v4(0, port: address.port), options: options)
        }
        do throws(SystemError) {
            try set(socket, MESH_OPTION_REUSE_ADDRESS, 1, "SO_REUSEADDR")
            if options.reusePort { try set(socket, MESH_OPTION_REUSE_PORT, 1, "SO_REUSEPORT") }
            if !address.isIPv4 { try set(socket, MESH_OPTION_IPV6_ONLY, options.dualStack ? 0 : 1, "IPV6_V6ONLY") }
            if options.transparent { try setTransparent(socket, ipv4: address.isIPv4) }
            if let mark = options.mark { try setMark(socket, mark) }
            try set(socket, MESH_OPTION_NO_DELAY, 1, "TCP_NODELAY")
            try setKeepAlive(socket)
            try setAbortive(socket)
            var native = address.native
            try SystemError.check(mesh_socket_bind(socket, &native, address.isIPv4), "bind to port \(address.port)")
            try SystemError.check(mesh_socket_listen(socket, options.backlog), "listen on port \(address.port)")
        } catch {
            mesh_close(socket)
            throw error
        }
        return socket
    }

    /// Starts a connection and returns at once; what fails immediately (no route, a hook that refuses) is thrown.
    public static func connect(
        to remote: RawSocketAddress, options: ConnectOptions = ConnectOptions()
    ) throws(SystemError) -> Int32 {
        let socket = try create(ipv4: remote.isIPv4)
        do throws(SystemError) {
            if let mark = options.mark { try setMark(socket, mark) }
            if let device = options.device { try setDevice(socket, device) }
            if let source = options.source { try bind(socket, to: source, remote: remote, options: options) }
            if options.noDelay { try set(socket, MESH_OPTION_NO_DELAY, 1, "TCP_NODELAY") }
            if options.keepAlive { try setKeepAlive(socket) }
            try setAbortive(socket)
            var native = remote.native
            try SystemError.check(mesh_socket_connect(socket, &native, remote.isIPv4), "connect")
        } catch {
            mesh_close(socket)
            throw error
        }
        return socket
    }

    /// The address a socket has, for instance the port the kernel chose for a listener.
    public static func localAddress(of socket: Int32) throws(SystemError) -> RawSocketAddress {
        var address = mesh_address()
        try SystemError.check(mesh_socket_local(socket, &address), "getsockname")
        return RawSocketAddress(address)
    }

    /// Where an accepted connection was going before the packet filter translated it; its own address when it was not.
    public static func originalDestination(of socket: Int32) throws(SystemError) -> RawSocketAddress {
        var address = mesh_address()
        let code = mesh_socket_original_destination(socket, &address)
        guard code != -Errno.noEntry else { return try localAddress(of: socket) }
        try SystemError.check(code, "getsockopt SO_ORIGINAL_DST")
        return RawSocketAddress(address)
    }

    /// Closes a socket that no stream or acceptor has taken over.
    public static func close(_ socket: Int32) { mesh_close(socket) }

    /// A second descriptor of the same socket: it stays open until both are closed.
    public static func duplicate(_ socket: Int32) throws(SystemError) -> Int32 {
        try SystemError.check(mesh_duplicate(socket), "duplicate a socket")
    }

    private static func bind(
        _ socket: Int32, to source: RawSocketAddress, remote: RawSocketAddress, options: ConnectOptions
    ) throws(SystemError) {
        guard source.isIPv4 == remote.isIPv4 else {
            throw SystemError(code: Errno.familyNotSupported, operation: "bind to a source of another IP version")
        }
        if options.transparent {
            try setTransparent(socket, ipv4: source.isIPv4)
            let freeBind = source.isIPv4 ? MESH_OPTION_IPV4_FREE_BIND : MESH_OPTION_IPV6_FREE_BIND
            try set(socket, freeBind, 1, "IP_FREEBIND")
        }
        if options.reuseAddress { try set(socket, MESH_OPTION_REUSE_ADDRESS, 1, "SO_REUSEADDR") }
        if source.port == 0 { try set(socket, MESH_OPTION_BIND_WITHOUT_PORT, 1, "IP_BIND_ADDRESS_NO_PORT") }
        var native = source.native
        try SystemError.check(mesh_socket_bind(socket, &native, source.isIPv4), "bind to the source address")
    }

    private static func create(ipv4: Bool) throws(SystemError) -> Int32 {
        try SystemError.check(mesh_socket_create(ipv4), "socket")
    }

    private static func setTransparent(_ socket: Int32, ipv4: Bool) throws(SystemError) {
        try set(socket, ipv4 ? MESH_OPTION_IPV4_TRANSPARENT : MESH_OPTION_IPV6_TRANSPARENT, 1, "IP_TRANSPARENT")
    }

    static func setMark(_ socket: Int32, _ mark: UInt32) throws(SystemError) {
        try set(socket, MESH_OPTION_MARK, Int32(bitPattern: mark), "SO_MARK")
    }

    private static func setDevice(_ socket: Int32, _ device: StaticString) throws(SystemError) {
        try SystemError.check(
            mesh_socket_bind_device(socket, device.utf8Start, UInt32(device.utf8CodeUnitCount)),
            "SO_BINDTODEVICE \(device)")
    }

    /// However the descriptor is closed, by a kill of the process too, the peer sees an abort and not a clean end that
    /// nobody meant: a stream cut short must not look complete. `SocketStream.close` takes it back for an end in order.
    private static func setAbortive(_ socket: Int32) throws(SystemError) {
        try SystemError.check(mesh_socket_linger_zero(socket), "setsockopt SO_LINGER")
    }

    private static func setKeepAlive(_ socket: Int32) throws(SystemError) {
        try set(socket, MESH_OPTION_KEEP_ALIVE, 1, "SO_KEEPALIVE")
        try set(socket, MESH_OPTION_KEEP_ALIVE_IDLE, 180, "TCP_KEEPIDLE")
        try set(socket, MESH_OPTION_KEEP_ALIVE_INTERVAL, 180, "TCP_KEEPINTVL")
        try set(socket, MESH_OPTION_KEEP_ALIVE_COUNT, 9, "TCP_KEEPCNT")
    }

    static func set(
        _ socket: Int32, _ option: mesh_option, _ value: Int32, _ name: StaticString
    ) throws(SystemError) {
        try SystemError.check(mesh_socket_set(socket, option, value), "setsockopt \(name)")
    }
}
