internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
internal import MeshModel

/// The semantic probe: an empty network namespace, the capture route, the lookup program, and one real connection to an
/// address that exists nowhere. If the listener sees that address, capture works here.
enum MarkLoopProbe {
    /// From TEST-NET-1 (RFC 5737): the workload, and whom it calls.
    private static let own = IPAddress(v4: 0xc000_0201)
    private static let other = IPAddress(v4: 0xc000_0263)

    static func checks(_ privileged: Bool) -> [PreflightReport.Check] {
        let titles = [
            ("sysctl.accept", "tcp_fwmark_accept"), ("routing", "policy routing by mark"),
            ("capture", "a captured connection"),
        ]
        guard privileged else { return titles.map { Preflight.untried($0.0, $0.1) } }
        guard let scratch = makeNamespace() else {
            return titles.map {
                .init($0.0, $0.1, .unknown, "no network namespace could be made", remedy: "use CONFIG_NET_NS")
            }
        }
        var checks: [PreflightReport.Check] = []
        do throws(KernelError) {
            try inNamespace(scratch.raw, place: "a scratch namespace") { () throws(KernelError) in
                checks.append(settings())
                checks.append(routing())
                checks.append(capture(scratch))
            }
        } catch {
            checks.append(.init("capture", titles[2].1, .unknown, error.cause, remedy: error.remedy))
        }
        return checks
    }

    /// Made on the calling thread, which returns home at once.
    private static func makeNamespace() -> Descriptor? {
        let here = mesh_open_current_network_namespace()
        guard here >= 0 else { return nil }
        let home = Descriptor(adopting: here)
        guard mesh_unshare_network_namespace() == 0 else { return nil }
        let made = mesh_open_current_network_namespace()
        if mesh_enter_network_namespace(home.raw) != 0 { fatalError("the thread is stuck in a scratch namespace") }
        return made >= 0 ? Descriptor(adopting: made) : nil
    }

    private static func settings() -> PreflightReport.Check {
        do throws(KernelError) {
            try NamespaceSettings.captured.apply()
            return .init("sysctl.accept", "tcp_fwmark_accept", .ok, "can be set in workloads' namespaces")
        } catch {
            return .init("sysctl.accept", "tcp_fwmark_accept", .fail, error.cause, remedy: error.remedy)
        }
    }

    private static func routing() -> PreflightReport.Check {
        let title = "policy routing by mark"
        let code = mesh_loopback_up(own.networkBytes)
        guard code == 0 else {
            return .init("routing", title, .unknown, "lo of a scratch namespace: \(errorText(code))")
        }
        do throws(KernelError) {
            try CaptureRoutes.install([own], loopback: if_nametoindex("lo"), place: "a scratch namespace")
            return .init("routing", title, .ok, "rule and local route accepted")
        } catch {
            return .init("routing", title, .fail, error.cause, remedy: error.remedy)
        }
    }

    private static func capture(_ namespace: Descriptor) -> PreflightReport.Check {
        func verdict(_ status: PreflightReport.Status, _ detail: String) -> PreflightReport.Check {
            .init(
                "capture", "a captured connection", status, detail,
                remedy: status == .ok ? "" : "see the checks above; report the kernel if they all pass")
        }
        do throws(KernelError) {
            let objects = try CaptureObjects.load(pins: nil)
            let listener = mesh_probe_listen()
            guard listener >= 0 else { return verdict(.fail, "transparent listener: \(errorText(listener))") }
            let listening = Descriptor(adopting: listener)
            try objects.listeners.set(UInt64(listening.raw), for: ListenerRole.outbound.key(slot: 0))
            let program = try objects.loadLookup(
                culvert_lookup_config(slot: 0, loopback: if_nametoindex("lo"), own: [own.abi]))
            let raw = bpf_link_create(program.raw, namespace.raw, BPF_SK_LOOKUP, nil)
            guard raw >= 0 else { return verdict(.fail, "attaching the lookup program: \(errorText(raw))") }
            let link = Descriptor(adopting: raw)
            defer { _ = link }
            var seen: UInt32 = 0
            let target = UInt32(truncatingIfNeeded: other.low)
            let code = mesh_probe_connect(listening.raw, target, CULVERT_MARK_CAPTURED, &seen)
            guard code == 0 else { return verdict(.fail, "the connection failed: \(errorText(code))") }
            guard seen == target else { return verdict(.fail, "the listener saw another destination") }
            return verdict(.ok, "a marked connection reached the listener with its destination")
        } catch {
            return verdict(.fail, error.cause)
        }
    }
}
