import Foundation
import Glibc
import MeshKernel
import MeshModel
import MeshRuntime

/// The listeners of a proxy in a namespace, and what arrives at them.
final class Proxy {
    private(set) var outbound: [Int32] = []
    private(set) var inbound: [Int32] = []
    private(set) var tunnel: [Int32] = []
    private var dns: [Int32] = []
    private let namespace: NetworkNamespace
    private let isTranslated: Bool

    /// - Parameters:
    ///   - cores: how many sockets share each port by SO_REUSEPORT.
    ///   - isTranslated: the packet filter brings connections here and knows where they were going.
    init(in namespace: NetworkNamespace, cores: Int = 1, isTranslated: Bool = false) throws {
        self.namespace = namespace
        self.isTranslated = isTranslated
        var options = ListenOptions()
        options.transparent = true
        options.reusePort = true
        for _ in 0..<cores {
            outbound.append(try listen(CaptureConstants.outboundPort, options))
            inbound.append(try listen(CaptureConstants.inboundPort, options))
            tunnel.append(try listen(CaptureConstants.tunnelPort, options))
        }
    }

    deinit { close() }

    var listeners: CaptureListeners {
        CaptureListeners(outbound: outbound[0], inbound: inbound[0], tunnel: tunnel[0])
    }

    /// As a killed daemon's sockets close.
    func close() {
        for socket in outbound + inbound + tunnel + dns { Socket.close(socket) }
        (outbound, inbound, tunnel, dns) = ([], [], [], [])
    }

    /// Has the workload's DNS captured.
    /// - Parameter capture: begins it, given the namespace and the server's socket.
    func captureDNS(by capture: (_ namespace: Int32, _ socket: Int32) throws -> Void) throws {
        let socket = try namespace.run { () throws(SystemError) in
            try Socket.bindDatagrams(port: CaptureConstants.dnsPort)
        }
        dns.append(socket)
        try capture(namespace.descriptor, socket)
    }

    private func listen(_ port: UInt16, _ options: ListenOptions) throws -> Int32 {
        try namespace.run { () throws(SystemError) -> Int32 in
            try Socket.listen(.v6(high: 0, low: 0, port: port), options: options)
        }
    }

    /// A connection of the proxy's queue: the original destination and getpeername.
    struct Accepted {
        let socket: Int32
        let destination: String
        let port: UInt16
        let source: String
    }

    /// Takes the next connection; the clients have connected before, so it is there or never comes.
    func accept(_ listeners: [Int32]) -> Accepted? {
        for listener in listeners {
            let socket = Glibc.accept(listener, nil, nil)
            guard socket >= 0 else { continue }
            let (destination, port) = isTranslated ? original(of: socket) : name(of: socket, getsockname)
            let (source, _) = name(of: socket, getpeername)
            return Accepted(socket: socket, destination: destination, port: port, source: source)
        }
        return nil
    }

    private func original(of socket: Int32) -> (String, UInt16) {
        guard let address = try? Socket.originalDestination(of: socket) else { return ("none", 0) }
        let ip =
            address.isIPv4
            ? IPAddress(v4: UInt32(truncatingIfNeeded: address.low))
            : IPAddress(high: address.high, low: address.low)
        return ("\(ip)", address.port)
    }

    private func name(
        of socket: Int32,
        _ ask: (Int32, UnsafeMutablePointer<sockaddr>?, UnsafeMutablePointer<socklen_t>?) -> Int32
    ) -> (String, UInt16) {
        var address = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        _ = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { ask(socket, $0, &size) }
        }
        let port = UInt16(bigEndian: address.sin6_port)
        // A listener of a kernel without IPv6; the port is at the same place in both.
        if Int32(address.sin6_family) == AF_INET {
            let own = withUnsafeBytes(of: address) { $0.load(as: sockaddr_in.self) }
            return ("\(IPAddress(v4: UInt32(bigEndian: own.sin_addr.s_addr)))", port)
        }
        let bytes = withUnsafeBytes(of: address.sin6_addr) { Array($0) }
        let half = { (range: Range<Int>) in bytes[range].reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
        return ("\(IPAddress(high: half(0..<8), low: half(8..<16)))", port)
    }

    /// The leg to the application: a blocking conversation from the client's address.
    /// - Returns: what the application answered.
    static func converse(
        in namespace: NetworkNamespace, from source: IPAddress, to destination: IPAddress, port: UInt16, text: String
    ) throws -> String {
        var options = ConnectOptions()
        options.source = raw(source, 0)
        options.transparent = true
        options.mark = CaptureConstants.upstreamMark
        options.device = "lo"
        let socket = try namespace.run { () throws(SystemError) -> Int32 in
            try Socket.connect(to: raw(destination, port), options: options)
        }
        defer { Socket.close(socket) }
        var ready = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
        guard poll(&ready, 1, 5000) == 1, ready.revents & Int16(POLLERR | POLLHUP) == 0 else { return "not connected" }
        _ = text.withCString { send(socket, $0, strlen($0), 0) }
        shutdown(socket, Int32(SHUT_WR))
        var answer: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 4096)
        ready.events = Int16(POLLIN)
        while poll(&ready, 1, 5000) == 1 {
            let count = recv(socket, &chunk, chunk.count, 0)
            if count <= 0 { break }
            answer += chunk.prefix(count)
        }
        return String(decoding: answer, as: UTF8.self)
    }

    private static func raw(_ address: IPAddress, _ port: UInt16) -> RawSocketAddress {
        RawSocketAddress(high: address.high, low: address.low, isIPv4: address.isIPv4, port: port)
    }
}
