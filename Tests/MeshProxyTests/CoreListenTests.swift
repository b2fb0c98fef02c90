import Glibc
import MeshModel
import MeshRuntime
import Testing

@testable import MeshProxy

/// A core accepts on all listeners of a workload or on none: the kernel spreads connections over those that listen.
@Suite struct CoreListenTests {
    private let name = ObjectName(namespace: "default", name: "shop")

    private func listener(at port: UInt16 = 0) throws -> (socket: Int32, port: UInt16) {
        let socket = try Socket.listen(RawSocketAddress.v4(0x7f00_0001, port: port))
        return (socket, try Socket.localAddress(of: socket).port)
    }

    /// 0, or the errno of a connection.
    private func connect(to port: UInt16) -> Int32 {
        let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(client) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(client, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return result == 0 ? 0 : errno
    }

    @Test func oneThatCannotBeAcceptedOnClosesAll() async throws {
        let plane = try DataPlane(cores: 2) { TestHub(core: $0) }
        defer { plane.stop() }
        let namespace = try NetworkNamespace.current()
        plane.post { [name] hub in
            let workload = Workload(name: name, addresses: [IPAddress(v4: 0x7f00_0001)], node: "node")
            _ = hub.add(workload, namespace: namespace, tls: nil)
        }
        let (first, last) = (try listener(), try listener())
        // Nobody can wait for a directory to become readable.
        let wrong = open("/", O_RDONLY | O_CLOEXEC)
        let error = await #expect(throws: SystemError.self) {
            try await plane.listen(
                on: [(.outbound, first.socket), (.inbound, wrong), (.tunnel, last.socket)], for: name, core: 1)
        }
        #expect(error?.code == EPERM && error?.operation == "epoll_ctl")
        #expect(try await plane.copyListeners().isEmpty)
        // Refused at once, where a listener that nobody accepts on would let them wait.
        for port in [first.port, last.port] { #expect(connect(to: port) == ECONNREFUSED) }

        // The ports are free for another attempt.
        let again = [try listener(at: first.port), try listener(at: last.port)]
        try await plane.listen(
            on: [(.outbound, again[0].socket), (.tunnel, again[1].socket)], for: name, core: 1)
        let copies = try await plane.copyListeners()
        #expect(copies.map(\.purpose) == [.outbound, .tunnel])
        for copy in copies { Socket.close(copy.descriptor) }
        // The hub goes with the plane: nothing may be left on its cores that still knows it.
        plane.post { [name] in $0.remove(name) }
        _ = await plane.openConnections()
    }

    @Test func aWorkloadThatIsGoneLeavesNoListener() async throws {
        let plane = try DataPlane(cores: 1) { TestHub(core: $0) }
        defer { plane.stop() }
        let (socket, port) = try listener()
        try await plane.listen(on: [(.inbound, socket)], for: name, core: 0)
        #expect(connect(to: port) == ECONNREFUSED)
    }
}
