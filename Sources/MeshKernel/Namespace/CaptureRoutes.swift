internal import CMeshABI
internal import CMeshSystem
internal import Glibc
internal import MeshModel

/// The capture route of one workload: marked packets go to a table whose one route says that every address is local, by
/// lo. The preferred source is the workload's own address; without it the kernel would choose the *destination* as the
/// source, as it does for local routes.
///
/// The functions work on the calling thread's network namespace.
enum CaptureRoutes {
    /// Makes rules and routes agree with the addresses; a family without an address loses both.
    static func install(_ addresses: [IPAddress], loopback: UInt32, place: String) throws(KernelError) {
        for ipv4 in [true, false] {
            guard let source = addresses.first(where: { $0.isIPv4 == ipv4 }) else {
                try remove(ipv4: ipv4, loopback: loopback, place: place)
                continue
            }
            var route = route(ipv4: ipv4, loopback: loopback)
            withUnsafeMutableBytes(of: &route.source) { bytes in
                for (index, byte) in source.networkBytes.enumerated() { bytes[index] = byte }
            }
            // The route first: a rule that leads to an empty table would let packets fall through to the main one.
            var code = mesh_local_route_set(&route)
            if code < 0 {
                throw refusal("adding the capture route", source, code, place)
            }
            var rule = rule(ipv4: ipv4)
            code = mesh_rule_add(&rule)
            if code < 0 && code != -EEXIST {
                throw refusal("adding the capture rule", source, code, place)
            }
        }
    }

    static func remove(loopback: UInt32, place: String) throws(KernelError) {
        for ipv4 in [true, false] { try remove(ipv4: ipv4, loopback: loopback, place: place) }
    }

    private static func remove(ipv4: Bool, loopback: UInt32, place: String) throws(KernelError) {
        var rule = rule(ipv4: ipv4)
        var route = route(ipv4: ipv4, loopback: loopback)
        for code in [mesh_rule_remove(&rule), mesh_local_route_remove(&route)] {
            // EAFNOSUPPORT, EOPNOTSUPP: the kernel has no IPv6, so there is nothing to remove.
            guard code < 0, ![-ENOENT, -ESRCH, -EAFNOSUPPORT, -EOPNOTSUPP, -ENODEV].contains(code) else { continue }
            throw KernelError(
                .namespaceRefused, "removing the capture route", at: place, code: code, remedy: "run with CAP_NET_ADMIN"
            )
        }
    }

    private static func rule(ipv4: Bool) -> mesh_rule {
        mesh_rule(
            mark: CULVERT_MARK_MATCH, mask: CULVERT_MARK_MASK, table: CULVERT_ROUTE_TABLE,
            priority: CULVERT_RULE_PRIORITY, ipv4: ipv4)
    }

    private static func route(ipv4: Bool, loopback: UInt32) -> mesh_local_route {
        var route = mesh_local_route()
        route.table = CULVERT_ROUTE_TABLE
        route.interface = loopback
        route.ipv4 = ipv4
        return route
    }

    private static func refusal(_ what: String, _ source: IPAddress, _ code: Int32, _ place: String) -> KernelError {
        switch code {
        case -EINVAL:
            KernelError(
                .addressMissing(source), what, at: place, cause: "\(source) is not an address of this namespace",
                remedy: "configure it there first (an IPv6 address must have passed duplicate address detection)")
        case -ENETDOWN, -ENODEV:
            KernelError(.namespaceRefused, what, at: place, code: code, remedy: "ip link set lo up, in the namespace")
        case -EAFNOSUPPORT, -EOPNOTSUPP:
            KernelError(
                .namespaceRefused, what, at: place, code: code,
                remedy: "this needs CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES")
        default:
            KernelError(.namespaceRefused, what, at: place, code: code, remedy: "run with CAP_NET_ADMIN")
        }
    }
}

extension IPAddress {
    /// 4 or 16 bytes in network order.
    var networkBytes: [UInt8] {
        var bytes: [UInt8] = []
        if !isIPv4 { for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(high >> shift & 0xff)) } }
        for shift in stride(from: isIPv4 ? 24 : 56, through: 0, by: -8) { bytes.append(UInt8(low >> shift & 0xff)) }
        return bytes
    }

    /// As the capture programs compare it: 16 bytes, IPv4 mapped (RFC 4291 §2.5.5.2).
    var abi: culvert_address {
        var address = culvert_address()
        withUnsafeMutableBytes(of: &address) { bytes in
            let mapped = isIPv4 ? [UInt8](repeating: 0, count: 10) + [0xff, 0xff] + networkBytes : networkBytes
            bytes.copyBytes(from: mapped)
        }
        return address
    }
}
