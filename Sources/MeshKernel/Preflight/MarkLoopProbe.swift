internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
internal import MeshModel

/// The semantic probe: the capture route, the lookup program, and one real connection to an address that exists nowhere.
/// If the listener sees that address, capture works here. Runs inside a scratch namespace.
enum MarkLoopProbe {
    /// From TEST-NET-1 (RFC 5737): the workload, and whom it calls.
    static let own = IPAddress(v4: 0xc000_0201)
    static let other = IPAddress(v4: 0xc000_0263)

    private static let accept = Probe(.behaviour, "sysctl.accept", "tcp_fwmark_accept, fwmark_reflect", [.l0, .l1])
    private static let routes = Probe(.behaviour, "routing", "policy routing by mark", [.l0, .l1])
    private static let connection = Probe(.behaviour, "capture", "a captured connection", [.l0, .l1])
    static let probes = [accept, routes, connection]

    static func checks(_ context: PreflightContext, _ namespace: Descriptor) -> [PreflightReport.Check] {
        [settings(), routing(context), captured(context, namespace)]
    }

    private static func settings() -> PreflightReport.Check {
        do throws(KernelError) {
            try NamespaceSettings.captured.apply()
            return accept.ok("can be set in workloads' namespaces")
        } catch {
            return accept.found(.fail, "\(error.place): \(error.cause)", remedy: error.remedy)
        }
    }

    private static func routing(_ context: PreflightContext) -> PreflightReport.Check {
        do throws(KernelError) {
            try CaptureRoutes.install([own], loopback: if_nametoindex("lo"), place: "a scratch namespace")
            return routes.ok("rule and local route accepted")
        } catch {
            return routes.found(
                .fail, error.cause,
                remedy: Remedy.option(
                    "CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES", since: "5.9", context.distribution))
        }
    }

    private static func captured(_ context: PreflightContext, _ namespace: Descriptor) -> PreflightReport.Check {
        let lacking = context.lacking([.bpf])
        guard lacking.isEmpty else { return connection.untried(context, lacking: lacking) }
        func failed(_ detail: String) -> PreflightReport.Check {
            connection.found(.fail, detail, remedy: "see the failed checks above; if there are none, report the kernel")
        }
        do throws(KernelError) {
            let objects = try CaptureObjects.load(pins: nil)
            let listener = mesh_probe_listen()
            guard listener >= 0 else { return failed("transparent listener: \(errorText(listener))") }
            let listening = Descriptor(adopting: listener)
            try objects.listeners.set(UInt64(listening.raw), for: ListenerRole.outbound.key(slot: 0))
            let program = try objects.loadLookup(
                culvert_lookup_config(slot: 0, loopback: if_nametoindex("lo"), own: [own.abi], level: .l1))
            let raw = bpf_link_create(program.raw, namespace.raw, BPF_SK_LOOKUP, nil)
            guard raw >= 0 else { return failed("attaching the lookup program: \(errorText(raw))") }
            let link = Descriptor(adopting: raw)
            defer { _ = link }
            var seen: UInt32 = 0
            let target = UInt32(truncatingIfNeeded: other.low)
            let code = mesh_probe_connect(listening.raw, target, CULVERT_MARK_CAPTURED, &seen)
            guard code == 0 else { return failed("the connection failed: \(errorText(code))") }
            guard seen == target else { return failed("the listener saw another destination") }
            return connection.ok("a marked connection reached the listener with its destination")
        } catch {
            return failed(error.cause)
        }
    }
}
