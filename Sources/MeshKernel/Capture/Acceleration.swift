internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc
internal import Synchronization

/// Whether this kernel is fit for tier T2, found by trying, and by version only where a try would crash it.
public struct AccelerationFitness: Hashable, Sendable {
    /// Why not; nil: it is.
    public let obstacle: String?

    static let notTried = AccelerationFitness(obstacle: "not tried")

    static func unfit(_ why: String) -> Self { Self(obstacle: why) }

    public var isFit: Bool { obstacle == nil }

    /// Tries a connection of its own in an empty network namespace.
    static func probe() -> Self {
        let context = PreflightContext(CaptureOptions(nodeName: "probe"))
        let fixes = SocketProbe.fixed(context)
        guard fixes.status == .ok else { return unfit(fixes.detail) }
        guard let scratch = BehaviourChecks.makeNamespace() else {
            return unfit("no network namespace could be made to try it: \(errorText(errno))")
        }
        do throws(KernelError) {
            return try inNamespace(scratch.raw, place: "a scratch namespace") { () throws(KernelError) in
                let code = mesh_loopback_up(MarkLoopProbe.own.networkBytes)
                if code != 0 { return unfit("it could not be tried: lo cannot be brought up: \(errorText(code))") }
                guard try SocketProbe.answers(withVerdict: false).isCharged else {
                    return unfit("the kernel does not charge bytes that were handed over to their receiver")
                }
                return try SocketProbe.answers(withVerdict: true).countsAll
                    ? Self(obstacle: nil) : unfit("FIONREAD forgets bytes of sockets in a sockmap")
            }
        } catch {
            return unfit("\(error.what): \(error.cause)")
        }
    }
}

extension CaptureObjects {
    /// Makes the programs those of the sockets that are enrolled from now on. Sockets that are in the map keep theirs,
    /// which work on the same maps: no socket is ever taken out or put in anew.
    static func attach(_ object: BPFObject, to ends: Descriptor) throws(KernelError) {
        let programs = [
            (program("culvert_verdict", of: object), BPF_SK_SKB_VERDICT),
            (program("culvert_accelerate", of: object), BPF_SK_MSG_VERDICT),
        ]
        for (program, type) in programs {
            let code = bpf_prog_attach(program.raw, ends.raw, type, 0)
            if code < 0 {
                throw KernelError(
                    .attachRefused, "attaching to the map of accelerated sockets", at: "ends", code: code,
                    remedy: "this needs a kernel of 5.19 or later with CONFIG_BPF_SYSCALL and CONFIG_INET")
            }
        }
    }

    /// Sends what is open by TCP from now on. A message under way at this very moment may be missing in its count.
    func slow(_ tuple: culvert_tuple) {
        if var shortcut = shortcuts.value(for: tuple) {
            shortcut.lanes.0.tcp_only = 1
            shortcut.lanes.1.tcp_only = 1
            _ = shortcuts.update(shortcut, for: tuple, existing: true)
        }
        if var flow = flows.value(for: tuple) {
            flow.flags &= ~UInt16(CULVERT_RULE_ACCELERATED.rawValue)
            _ = flows.update(flow, for: tuple, existing: true)
        }
    }
}

// Tier T2 seen from the daemon. Its invariants are those of accelerate.bpf.c; from here:
//
// - An entry of `ends` is never removed: the kernel would throw away what its socket has not read. Whoever wants a
//   connection back on TCP changes what the programs read.
// - A daemon that starts leaves open connections as they are until its configuration says otherwise.
extension KernelCapture {
    /// Whether direct connections can be accelerated here. Where not, rules that ask for it are direct all the same.
    public var acceleration: AccelerationFitness { objects.acceleration }

    /// The switch for the whole node. Without it no connection is enrolled, and those that are go on by TCP from their
    /// next message on.
    public func setAcceleration(_ isOn: Bool) throws(KernelError) {
        try state.withLock { state throws(KernelError) in
            let isOn = isOn && acceleration.isFit
            guard state.direct.isAccelerating != isOn else { return }
            state.direct.isAccelerating = isOn
            try objects.control.set(state.direct.control, for: 0)
        }
    }

    /// Takes one connection back to TCP, from its next message on and for good.
    public func slow(_ flow: DirectFlow) { objects.slow(culvert_tuple(flow.source, flow.destination)) }
}
