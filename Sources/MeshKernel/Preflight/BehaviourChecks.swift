internal import CBPF
internal import CMeshSystem
internal import Glibc
internal import MeshModel

/// Real connections in an empty network namespace, and behaviour that no version number tells.
enum BehaviourChecks {
    private static let space = Probe(.behaviour, "namespace", "a scratch namespace", [.l0, .l1, .l2, .l3])

    static func all(_ context: PreflightContext) -> [PreflightReport.Check] {
        let lacking = context.lacking([.sysAdmin, .netAdmin])
        guard lacking.isEmpty else {
            return ([space] + MarkLoopProbe.probes + SocketProbe.probes + RedirectProbe.probes).map {
                $0.untried(context, lacking: lacking)
            }
        }
        guard let scratch = makeNamespace() else {
            let code = errno
            return [
                space.found(
                    .fail, "no network namespace could be made: \(errorText(code))",
                    remedy: code == ENOSPC
                        ? "raise the limit: sysctl -w user.max_net_namespaces=10000 (and in /etc/sysctl.d)"
                        : Remedy.option("CONFIG_NET_NS", since: "5.9", context.distribution))
            ]
        }
        do throws(KernelError) {
            return try inNamespace(scratch.raw, place: "a scratch namespace") { () throws(KernelError) in
                let code = mesh_loopback_up(MarkLoopProbe.own.networkBytes)
                guard code == 0 else { return [space.found(.fail, "lo cannot be brought up: \(errorText(code))")] }
                var checks = [space.ok("made and entered")]
                checks += MarkLoopProbe.checks(context, scratch)
                checks += SocketProbe.checks(context)
                checks += RedirectProbe.checks(context)
                return checks
            }
        } catch {
            return [space.found(.fail, error.cause, remedy: error.remedy)]
        }
    }

    /// Made on the calling thread, which returns home at once.
    static func makeNamespace() -> Descriptor? {
        let here = mesh_open_current_network_namespace()
        guard here >= 0 else { return nil }
        let home = Descriptor(adopting: here)
        guard mesh_unshare_network_namespace() == 0 else { return nil }
        let made = mesh_open_current_network_namespace()
        if mesh_enter_network_namespace(home.raw) != 0 { fatalError("the thread is stuck in a scratch namespace") }
        return made >= 0 ? Descriptor(adopting: made) : nil
    }
}
