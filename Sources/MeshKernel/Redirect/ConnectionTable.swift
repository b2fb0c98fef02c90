internal import CMeshSystem
internal import Glibc
internal import MeshModel
internal import Synchronization

/// The kernel's connection table of one network namespace, which remembers where translated datagrams were sent to.
/// (A socket of UDP has no SO_ORIGINAL_DST: that is the connection's, and it has many.)
final class ConnectionTable: Sendable {
    private let socket: Descriptor
    private let calls = Atomic<UInt32>(0)

    /// Opens that of the calling thread's namespace, and asks it something: a kernel may have no such door.
    init(place: String) throws(KernelError) {
        let raw = mesh_connections_open()
        guard raw >= 0 else { throw Self.refusal(raw, place) }
        socket = Descriptor(adopting: raw)
        var nobody = mesh_datagram_ends()
        nobody.ipv4 = true
        let code = ask(&nobody)
        guard code == 0 || code == -ENOENT else { throw Self.refusal(code, place) }
    }

    /// What a datagram that arrived from one address at another was sent to; nil when the table does not know it.
    func destination(from: SocketAddress, to: SocketAddress) -> SocketAddress? {
        var ends = mesh_datagram_ends()
        ends.ipv4 = to.ip.isIPv4
        (ends.from_port, ends.to_port) = (from.port, to.port)
        Self.write(from.ip, &ends.from)
        Self.write(to.ip, &ends.to)
        guard from.ip.isIPv4 == to.ip.isIPv4, ask(&ends) == 0 else { return nil }
        return SocketAddress(ip: Self.read(ends.to, isIPv4: ends.ipv4), port: ends.to_port)
    }

    private func ask(_ ends: inout mesh_datagram_ends) -> Int32 {
        mesh_connections_sent_to(socket.raw, calls.wrappingAdd(1, ordering: .relaxed).newValue, &ends)
    }

    private static func write<Bytes>(_ address: IPAddress, _ bytes: inout Bytes) {
        withUnsafeMutableBytes(of: &bytes) { bytes in
            if address.isIPv4 {
                bytes.storeBytes(of: UInt32(truncatingIfNeeded: address.low).bigEndian, as: UInt32.self)
            } else {
                bytes.storeBytes(of: address.high.bigEndian, as: UInt64.self)
                bytes.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
        }
    }

    private static func read<Bytes>(_ bytes: Bytes, isIPv4: Bool) -> IPAddress {
        withUnsafeBytes(of: bytes) { bytes in
            if isIPv4 { return IPAddress(v4: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))) }
            return IPAddress(
                high: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }

    private static func refusal(_ code: Int32, _ place: String) -> KernelError {
        KernelError(
            .namespaceRefused, "reading the connection table", at: place, code: code,
            remedy: code == -EPERM
                ? "run with CAP_NET_ADMIN" : "this needs CONFIG_NF_CT_NETLINK (module nf_conntrack_netlink)")
    }
}
