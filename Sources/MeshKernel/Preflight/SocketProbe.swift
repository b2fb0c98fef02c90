internal import CBPF
internal import CMeshSystem
internal import Glibc

/// What sockets do here that a version number does not tell: in a sockmap, at the hand of SOCK_DESTROY, under kTLS.
/// Runs inside a scratch namespace.
enum SocketProbe {
    private static let destroy = Probe(.behaviour, "sockdestroy", "ending a connection (SOCK_DESTROY)", [.t1])
    private static let pending = Probe(.behaviour, "fionread", "FIONREAD in a sockmap", [.t2])
    private static let splicing = Probe(.behaviour, "splice", "splice of redirected bytes")
    private static let memory = Probe(.behaviour, "sockmap.memory", "memory of redirected bytes", [.t2])
    private static let fixes = Probe(.behaviour, "sockmap.fixes", "sockmap fixes (by version)", [.t2])
    private static let tls = Probe(.behaviour, "ktls", "TLS in the kernel")
    static let probes = [destroy, pending, splicing, memory, fixes, tls]

    static func checks(_ context: PreflightContext) -> [PreflightReport.Check] {
        [destroyed(context)] + sockmap(context) + [fixed(context), kernelTLS(context)]
    }

    private static func destroyed(_ context: PreflightContext) -> PreflightReport.Check {
        switch mesh_probe_destroy() {
        case 0: return destroy.ok("a connection was ended with ECONNABORTED")
        case -ENOENT:
            return destroy.found(
                .fail, "the kernel has no tcp_diag", remedy: Remedy.module("inet_diag tcp_diag", context.distribution))
        case -EOPNOTSUPP:
            return destroy.found(
                .fail, "the kernel has no SOCK_DESTROY",
                remedy: Remedy.option("CONFIG_INET_DIAG_DESTROY", since: "4.5", context.distribution))
        case -EISCONN: return destroy.found(.fail, "acknowledged, and the connection lived on", remedy: "")
        case let code: return destroy.found(.fail, errorText(code))
        }
    }

    /// What a receiver in a sockmap answers about five bytes: sent over the wire, then redirected to it.
    struct Answers: Hashable {
        var wirePending: Int32 = 0
        var redirectedPending: Int32 = 0
        var redirectedSplice: Int32 = 0
        /// What the receiver is charged for.
        var redirectedMemory: Int32 = 0

        var countsAll: Bool { wirePending == 5 && redirectedPending == 5 }
        /// Without that nobody knows whether a receiver has read, and a sender that never reads is never held back.
        var isCharged: Bool { redirectedMemory >= 5 }
    }

    private static func sockmap(_ context: PreflightContext) -> [PreflightReport.Check] {
        let lacking = context.lacking([.bpf])
        guard lacking.isEmpty else { return [pending, splicing, memory].map { $0.untried(context, lacking: lacking) } }
        do throws(KernelError) {
            let plain = try answers(withVerdict: false)
            return [counted(context, plain), spliced(plain), charged(context, plain)]
        } catch {
            return [pending, splicing, memory].map { $0.found(.unknown, "not tried: \(error.what): \(error.cause)") }
        }
    }

    /// T2 always has the verdict program attached; without it some kernels answer otherwise, which is told as well.
    private static func counted(_ context: PreflightContext, _ plain: Answers) -> PreflightReport.Check {
        let without =
            plain.countsAll
            ? ""
            : " (without a verdict program \(words(plain.wirePending)) and \(words(plain.redirectedPending)))"
        let found: String
        do throws(KernelError) {
            let right = try answers(withVerdict: true)
            found = "\(words(right.wirePending)) by wire and \(words(right.redirectedPending)) redirected\(without)"
            if right.countsAll { return pending.ok(found) }
        } catch {
            found = "a verdict program cannot be tried: \(error.cause)\(without)"
        }
        return pending.found(
            .fail, found, cost: "readers that ask how much there is (nginx, Java, .NET) would stop",
            remedy: Remedy.newerKernel("7.2", context.distribution))
    }

    private static func words(_ answer: Int32) -> String {
        answer < 0 ? errorText(answer) : "\(answer) of 5 bytes"
    }

    private static func spliced(_ plain: Answers) -> PreflightReport.Check {
        if plain.redirectedSplice == 5 { return splicing.ok("5 of 5 bytes") }
        return splicing.found(
            .warn, plain.redirectedSplice == -EAGAIN ? "sees none of 5 bytes" : words(plain.redirectedSplice),
            cost:
                "at T2 readers that splice stall (HAProxy, nginx stream, Envoy, io.Copy of Go), as on every kernel so far",
            remedy: "keep such workloads at T1: T2 is chosen by workload")
    }

    private static func charged(_ context: PreflightContext, _ plain: Answers) -> PreflightReport.Check {
        if plain.isCharged { return memory.ok("charged to the receiver") }
        return memory.found(
            .fail, plain.redirectedMemory < 0 ? words(plain.redirectedMemory) : "not charged to the receiver",
            cost: "two workloads that send and never read could fill the kernel's memory",
            remedy: Remedy.newerKernel("6.14", context.distribution))
    }

    /// Tries a pair of sockets of our own.
    static func answers(withVerdict: Bool) throws(KernelError) -> Answers {
        let object = try BPFObject.load(BPFObjects.probe, named: "probe", constants: ())
        guard let map = object.maps["sockets"], let message = object.programs["probe_message"],
            let verdict = object.programs["probe_verdict"]
        else { preconditionFailure("the probe object lacks a map or a program") }
        try require(bpf_prog_attach(message.raw, map.raw, BPF_SK_MSG_VERDICT, 0), "attaching a message program")
        if withVerdict {
            try require(bpf_prog_attach(verdict.raw, map.raw, BPF_SK_SKB_VERDICT, 0), "attaching a verdict program")
        }
        var client: Int32 = -1
        var server: Int32 = -1
        try require(mesh_probe_pair(&client, &server), "connecting over lo")
        let ends = (Descriptor(adopting: client), Descriptor(adopting: server))
        let sockets = BPFMap<UInt32, UInt64>(descriptor: map, name: "sockets")

        var answers = Answers()
        try sockets.set(UInt64(server), for: 1)
        try send(ends.0, to: ends.1)
        answers.wirePending = mesh_probe_pending(server)
        try receive(ends.1)
        try sockets.set(UInt64(client), for: 0)
        try send(ends.0, to: ends.1)
        answers.redirectedPending = mesh_probe_pending(server)
        answers.redirectedMemory = mesh_probe_charged(server)
        answers.redirectedSplice = mesh_probe_splice(server, 5)
        return answers
    }

    private static func send(_ from: Descriptor, to: Descriptor) throws(KernelError) {
        try require(Glibc.send(from.raw, "probe", 5, Int32(MSG_NOSIGNAL)) == 5 ? 0 : -errno, "sending")
        try require(mesh_probe_await(to.raw), "waiting for five bytes")
    }

    private static func receive(_ at: Descriptor) throws(KernelError) {
        var bytes = [UInt8](repeating: 0, count: 16)
        let count = recv(at.raw, &bytes, bytes.count, 0)
        try require(count == 5 ? 0 : count < 0 ? -errno : -EMSGSIZE, "receiving five bytes")
    }

    private static func require(_ code: Int32, _ what: String) throws(KernelError) {
        guard code < 0 else { return }
        throw KernelError(.system, what, at: "a scratch namespace", code: code, remedy: "report the kernel")
    }

    /// CVE-2024-56664: replacing an element against the close of its socket. The programs use none of what the other
    /// advisories concern (apply, cork, pop, stream parsers).
    static func fixed(_ context: PreflightContext) -> PreflightReport.Check {
        let releases = [
            KernelVersion(5, 10, 236), KernelVersion(5, 15, 180), KernelVersion(6, 1, 125), KernelVersion(6, 6, 67),
            KernelVersion(6, 12, 6), KernelVersion(6, 13),
        ]
        guard let version = context.version else { return fixes.found(.unknown, "the kernel tells no version") }
        if version.includes(fixedIn: releases) { return fixes.ok("\(version) has the fix of CVE-2024-56664") }
        return fixes.found(
            .warn, "\(version) is older than the fix of CVE-2024-56664 (a hint: distributions carry fixes back)",
            cost: "at T2 a socket that closes while it is replaced in a map may crash the kernel",
            remedy: Remedy.newerKernel("6.13 or its stable series", context.distribution))
    }

    private static func kernelTLS(_ context: PreflightContext) -> PreflightReport.Check {
        var step = MESH_TLS_DONE
        let code = mesh_probe_tls(&step)
        switch step {
        case MESH_TLS_DONE: return tls.ok("TLS 1.3 with AES-128-GCM, both ways; culvert encrypts in user space")
        case MESH_TLS_ULP where code == -ENOENT:
            return tls.ok("absent; nothing depends on it, culvert encrypts in user space")
        case MESH_TLS_PAIR: return tls.found(.unknown, "no connection over lo: \(errorText(code))")
        default:
            let what = step == MESH_TLS_ULP ? "turning on" : step == MESH_TLS_TRANSMIT ? "sending" : "receiving"
            return tls.ok("\(what) is refused: \(errorText(code)); nothing depends on it")
        }
    }
}
