internal import CBPF
internal import CMeshABI
internal import CMeshSystem
internal import Glibc

/// The kernel's own word on our programs: a trial load of each, and a trial attach in a cgroup made for it.
enum ProgramChecks {
    /// One embedded object to try.
    private struct Trial {
        let probe: Probe
        let version: String
        let load: () throws(KernelError) -> Void

        init<Constants>(
            _ id: String, _ title: String, _ neededBy: [PreflightReport.Use], since version: String,
            _ image: StaticString, _ constants: Constants
        ) {
            probe = Probe(.programs, id, title, neededBy)
            self.version = version
            load = { () throws(KernelError) in _ = try BPFObject.load(image, named: id, constants: constants) }
        }
    }

    /// Every object a node may load: a new one is a line here.
    private static var trials: [Trial] {
        [
            Trial(
                "program.connect", "connect hooks", [.l0, .l1], since: "5.9", BPFObjects.connect,
                culvert_connect_config(
                    refuse_with_errno: 0, notes_legs: 1, sees_multipath: 0, answers_questions: 1)),
            Trial(
                "program.rewrite", "hooks that rewrite destinations", [.l2], since: "5.8", BPFObjects.rewrite,
                culvert_connect_config(
                    refuse_with_errno: 0, notes_legs: 0, sees_multipath: 0, answers_questions: 1)),
            Trial(
                "program.lookup", "lookup program", [.l0, .l1], since: "5.9", BPFObjects.lookup,
                culvert_lookup_config(slot: 0, loopback: 1, own: [], level: .l1)),
            Trial(
                "program.flows", "socket event program", [.l0, .l1], since: "5.9", BPFObjects.flows,
                culvert_flows_config(accelerate: 0, padding: 0)),
            Trial(
                "program.enrol", "the same, enrolling accelerated connections", [.t2], since: "5.19", BPFObjects.flows,
                culvert_flows_config(accelerate: 1, padding: 0)),
            Trial("program.accelerate", "socket message program", [.t2], since: "5.19", BPFObjects.accelerate, ()),
            Trial("program.device", "arrival device in lookup programs", [.l0], since: "5.17", BPFObjects.device, ()),
            Trial("program.sockmap", "redirecting between sockets", [.t2], since: "5.13", BPFObjects.probe, ()),
        ]
    }

    /// Hooks that are tried with an empty program: the kernel refuses an attach type it does not know at load.
    private static let hooks: [(probe: Probe, type: bpf_attach_type, version: String, cost: String)] = [
        (
            Probe(.programs, "hook.sendmsg", "datagram send hooks"), BPF_CGROUP_UDP4_SENDMSG, "4.18",
            "DNS questions of unconnected sockets are not captured"
        ),
        (
            Probe(.programs, "hook.recvmsg", "datagram receive hooks"), BPF_CGROUP_UDP4_RECVMSG, "5.2",
            "DNS answers carry the proxy's address, which resolvers refuse"
        ),
    ]

    static func all(_ context: PreflightContext) -> [PreflightReport.Check] {
        let attach = Probe(.programs, "attach.cgroup", "attaching to a cgroup", [.l0, .l1])
        let rewrite = Probe(.programs, "attach.rewrite", "attaching hooks that rewrite", [.l2])
        let lacking = context.lacking([.bpf, .netAdmin])
        guard lacking.isEmpty else {
            let probes = trials.map(\.probe) + hooks.map(\.probe) + [attach, rewrite]
            return probes.map { $0.untried(context, lacking: lacking) }
        }
        return trials.map { tried($0, context) }
            + hooks.map { hook in
                do throws(KernelError) {
                    _ = try emptyProgram(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, hook.type)
                    return hook.probe.ok("accepted")
                } catch {
                    return hook.probe.found(
                        .warn, error.cause, cost: hook.cost,
                        remedy: Remedy.newerKernel(hook.version, context.distribution))
                }
            } + [
                attached(attach, context) { () throws(KernelError) in
                    let objects = try CaptureObjects.load(pins: nil)
                    return [
                        (objects.connect4, BPF_CGROUP_INET4_CONNECT), (objects.connect6, BPF_CGROUP_INET6_CONNECT),
                        (objects.getpeername4, BPF_CGROUP_INET4_GETPEERNAME),
                        (objects.getpeername6, BPF_CGROUP_INET6_GETPEERNAME), (objects.sockops, BPF_CGROUP_SOCK_OPS),
                    ]
                },
                attached(rewrite, context) { () throws(KernelError) in
                    let object = try ConnectRewrite.load(.probe())
                    return ConnectRewrite.hooks.map { (CaptureObjects.program($0.name, of: object), $0.type) }
                },
            ]
    }

    private static func tried(_ trial: Trial, _ context: PreflightContext) -> PreflightReport.Check {
        do throws(KernelError) {
            try trial.load()
            return trial.probe.ok("accepted by the verifier")
        } catch {
            // The verifier's own verdict may be EACCES too.
            let denied =
                error.cause.contains("EPERM")
                || error.cause.contains("EACCES") && !error.cause.contains("verifier: ")
            return trial.probe.found(
                .fail, error.cause,
                remedy: denied
                    ? Remedy.permitBPF(context.distribution) : Remedy.newerKernel(trial.version, context.distribution))
        }
    }

    /// A program that allows everything: `r0 = 1; exit`.
    static func emptyProgram(_ type: bpf_prog_type, _ attach: bpf_attach_type) throws(KernelError) -> Descriptor {
        let code: [UInt64] = [0x0000_0001_0000_00b7, 0x95]
        var options = bpf_prog_load_opts()
        options.sz = MemoryLayout<bpf_prog_load_opts>.size
        options.expected_attach_type = attach
        let raw = code.withUnsafeBytes { bytes in
            bpf_prog_load(
                type, "culvert_probe", "Dual BSD/GPL", bytes.baseAddress?.assumingMemoryBound(to: bpf_insn.self),
                code.count, &options)
        }
        guard raw >= 0 else {
            throw KernelError(
                .programRefused, "loading an empty program", at: "attach type \(attach.rawValue)", code: raw,
                remedy: "use a newer kernel")
        }
        return Descriptor(adopting: raw)
    }

    /// Attaches hooks of ours to an empty cgroup below the attach point, for a moment.
    private static func attached(
        _ probe: Probe, _ context: PreflightContext,
        _ hooks: () throws(KernelError) -> [(program: Descriptor, type: bpf_attach_type)]
    ) -> PreflightReport.Check {
        guard let parent = try? CgroupMount.attachPoint(context.options) else {
            return probe.found(.unknown, "not tried: there is no cgroup2 to attach to")
        }
        let path = "\(parent)/culvert-preflight.\(getpid())"
        guard mkdir(path, 0o755) == 0 else {
            let remedy =
                errno == EROFS
                ? "mount the host's cgroup2 writable into the container" : "run as root with a writable cgroup2"
            return probe.found(.fail, "making \(path): \(errorText(errno))", remedy: remedy)
        }
        defer { rmdir(path) }
        let raw = mesh_open(path)
        guard raw >= 0 else { return probe.found(.fail, "opening \(path): \(errorText(raw))", remedy: "try again") }
        let cgroup = Descriptor(adopting: raw)
        do throws(KernelError) {
            for hook in try hooks() {
                let link = bpf_link_create(hook.program.raw, cgroup.raw, hook.type, nil)
                guard link >= 0 else { return refused(probe, link, context) }
                // Closing the only descriptor of an unpinned link detaches it.
                close(link)
            }
            return probe.ok("all programs attach")
        } catch {
            return probe.found(.unknown, "not tried: \(error.cause)", remedy: "see the programs above")
        }
    }

    private static func refused(_ probe: Probe, _ code: Int32, _ context: PreflightContext) -> PreflightReport.Check {
        code == -EPERM
            ? probe.found(
                .fail, "\(errorText(code)): a program above is attached for itself alone (see conflicts)",
                remedy: "attach it with BPF_F_ALLOW_MULTI or a link, detach it, or choose another --cgroup")
            : probe.found(.fail, errorText(code), remedy: Remedy.newerKernel("5.7", context.distribution))
    }
}
