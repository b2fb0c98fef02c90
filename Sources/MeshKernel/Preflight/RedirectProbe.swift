internal import CMeshSystem
internal import Glibc
internal import MeshModel

/// What capture without (all of) eBPF stands on: the `nft` program, and a rule that really turns a connection around.
/// Runs inside a scratch namespace, which takes the rules with it.
enum RedirectProbe {
    private static let probe = Probe(.behaviour, "nft", "redirection by nft", [.l2, .l3])
    private static let dns = Probe(.behaviour, "nft.dns", "redirection of DNS by UDP")
    static let probes = [probe, dns]
    private static let loopback: UInt32 = 0x7f00_0001

    static func checks(_ context: PreflightContext) -> [PreflightReport.Check] {
        let redirection = check(context)
        // Without the one there is no question of the other.
        return redirection.status == .ok ? [redirection, questions(context)] : [redirection]
    }

    private static func questions(_ context: PreflightContext) -> PreflightReport.Check {
        do throws(KernelError) {
            try DNSRulesProbe.tryHere()
            return dns.ok("its rules load, and the connection table tells whom questions were meant for")
        } catch {
            return dns.found(
                .warn, "\(error.what): \(error.cause)", cost: "at L2 and L3 only DNS by TCP is captured",
                remedy: Remedy.module("nf_conntrack_netlink", context.distribution))
        }
    }

    private static func check(_ context: PreflightContext) -> PreflightReport.Check {
        guard let program = try? NftProgram.path() else {
            return probe.found(.fail, "there is no nft program", remedy: Remedy.nftProgram(context.distribution))
        }
        let listener = mesh_probe_listen()
        guard listener >= 0 else { return probe.found(.fail, "transparent listener: \(errorText(listener))") }
        let listening = Descriptor(adopting: listener)
        // The rules of capture spare what stays on lo, and here is nothing else: they are loaded for the kernel's word on
        // each of their expressions, and one more turns the connection around.
        let rules =
            NftRules(addresses: [MarkLoopProbe.own], live: []).script() + """
                table inet culvert_probe {
                    chain outbound {
                        type nat hook output priority -90;
                        ip daddr \(MarkLoopProbe.other) tcp dport 80 dnat ip to 127.0.0.1:\(localPort(listening))
                    }
                }

                """
        do throws(KernelError) {
            try NftProgram.apply(rules, what: "loading the rules of capture", place: "a scratch namespace")
        } catch {
            return probe.found(
                .fail, "\(program) does not load our rules: \(error.cause)",
                remedy: Remedy.module(
                    "nf_tables nft_chain_nat nft_ct nft_fib_inet nft_reject_inet", context.distribution))
        }
        var seen: UInt32 = 0
        let target = UInt32(truncatingIfNeeded: MarkLoopProbe.other.low)
        let code = mesh_probe_connect(listening.raw, target, 0, &seen)
        guard code == 0, seen == loopback else {
            return probe.found(
                .fail,
                "the rules load, but a connection is not redirected"
                    + (code == 0 ? "" : ": \(errorText(code))"),
                remedy: Remedy.module("nf_conntrack nft_chain_nat", context.distribution))
        }
        return probe.ok("\(program) loaded our rules and redirected a connection")
    }

    private static func localPort(_ socket: Descriptor) -> UInt16 {
        var address = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(socket.raw, $0, &size) }
        }
        return UInt16(bigEndian: address.sin_port)
    }
}
