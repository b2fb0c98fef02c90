internal import Glibc
internal import MeshModel

/// Whether rules can capture DNS by UDP here: beside what those of connections need, zones and a door to the connection
/// table. Asked of the kernel itself.
enum DNSRulesProbe {
    /// Why not, tried in a namespace of its own; nil: they can.
    static func obstacle() -> String? {
        guard let scratch = BehaviourChecks.makeNamespace() else {
            return "no network namespace could be made to try it in: \(errorText(errno))"
        }
        do throws(KernelError) {
            try inNamespace(scratch.raw, place: "a scratch namespace") { () throws(KernelError) in try tryHere() }
            return nil
        } catch {
            return "\(error.what): \(error.cause); \(error.remedy)"
        }
    }

    /// Tries it in the calling thread's namespace, whose rules of capture are replaced.
    static func tryHere() throws(KernelError) {
        let place = "a scratch namespace"
        let rules = NftRules(addresses: [MarkLoopProbe.own], live: [], capturesDNS: true)
        do throws(KernelError) {
            try NftProgram.apply(rules.script(), what: "loading the rules of DNS capture", place: place)
        } catch {
            throw KernelError(
                error.kind, error.what, at: place, cause: error.cause,
                remedy: "this needs CONFIG_NF_CONNTRACK_ZONES and nft_nat for UDP")
        }
        _ = try ConnectionTable(place: place)
    }
}
