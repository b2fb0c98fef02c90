internal import CBPF
internal import CMeshABI
internal import Glibc

extension Preflight {
    /// Feature probes, then a trial load of our own objects: the kernel itself says what it accepts.
    static func programs(_ privileged: Bool) -> [PreflightReport.Check] {
        let titles = ["program.connect": "connect hooks", "program.lookup": "lookup program"]
        guard privileged else { return titles.sorted { $0.key < $1.key }.map { untried($0.key, $0.value) } }
        var checks = [
            probe(
                "bpf.connect", "cgroup socket address programs",
                libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, nil), needs: "CONFIG_CGROUP_BPF (4.17)"),
            probe(
                "bpf.lookup", "socket lookup programs", libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SK_LOOKUP, nil),
                needs: "CONFIG_BPF_SYSCALL and CONFIG_INET (5.9)"),
            probe(
                "bpf.sockmap", "socket maps", libbpf_probe_bpf_map_type(BPF_MAP_TYPE_SOCKMAP, nil),
                needs: "CONFIG_BPF_STREAM_PARSER before 5.13"),
            probe(
                "bpf.cookie", "namespace cookie in connect hooks",
                libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_get_netns_cookie, nil),
                needs: "Linux 5.7"),
        ]
        let errno = libbpf_probe_bpf_helper(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, BPF_FUNC_set_retval, nil)
        checks.append(
            .init(
                "bpf.retval", "refusals as ECONNREFUSED", errno == 1 ? .ok : .warn,
                errno == 1 ? "present" : "absent: refused applications see EPERM",
                remedy: errno == 1 ? "" : "use Linux 5.18 or later", required: false))

        var objects: CaptureObjects?
        do throws(KernelError) {
            objects = try CaptureObjects.load(pins: nil)
            checks.append(.init("program.connect", "connect hooks", .ok, "accepted by the verifier"))
        } catch {
            checks.append(.init("program.connect", "connect hooks", .fail, error.cause, remedy: error.remedy))
        }
        guard let objects else {
            checks.append(.init("program.lookup", "lookup program", .unknown, "not tried: its maps are missing"))
            return checks
        }
        do throws(KernelError) {
            _ = try objects.loadLookup(culvert_lookup_config(slot: 0, loopback: 1, own: []))
            checks.append(.init("program.lookup", "lookup program", .ok, "accepted by the verifier"))
        } catch {
            checks.append(.init("program.lookup", "lookup program", .fail, error.cause, remedy: error.remedy))
        }
        return checks
    }

    private static func probe(
        _ id: String, _ title: String, _ result: Int32, needs: String
    ) -> PreflightReport.Check {
        switch result {
        case 1: .init(id, title, .ok, "present")
        case 0: .init(id, title, .fail, "absent", remedy: "use a kernel with \(needs)")
        default: .init(id, title, .unknown, errorText(result), remedy: "run culvert preflight as root")
        }
    }

    /// Attaches the connect hooks to an empty cgroup below the attach point.
    static func hooks(_ options: CaptureOptions, _ privileged: Bool) -> PreflightReport.Check {
        let id = "attach.cgroup"
        let title = "attaching to a cgroup"
        guard privileged else { return untried(id, title) }
        do throws(KernelError) {
            let path = try CgroupMount.attachPoint(options) + "/culvert-preflight.\(getpid())"
            guard mkdir(path, 0o755) == 0 else {
                return .init(
                    id, title, .fail, "making \(path): \(errorText(errno))", remedy: "run with a writable cgroup2")
            }
            defer { rmdir(path) }
            let raw = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
            guard raw >= 0 else {
                return .init(id, title, .fail, "opening \(path): \(errorText(errno))", remedy: "check the mount")
            }
            let cgroup = Descriptor(adopting: raw)
            let objects = try CaptureObjects.load(pins: nil)
            for (program, type) in [
                (objects.connect4, BPF_CGROUP_INET4_CONNECT), (objects.connect6, BPF_CGROUP_INET6_CONNECT),
            ] {
                let link = bpf_link_create(program.raw, cgroup.raw, type, nil)
                guard link >= 0 else {
                    return .init(
                        id, title, .fail, errorText(link),
                        remedy: link == -EPERM
                            ? "a program above is attached without multi mode: detach it, or choose another --cgroup"
                            : "use a kernel with bpf links for cgroups (5.7)")
                }
                // Closing the only descriptor of an unpinned link detaches it.
                close(link)
            }
            return .init(id, title, .ok, "connect4 and connect6 attach")
        } catch {
            return .init(
                id, title, error.kind == .cgroupUnavailable ? .fail : .unknown, error.cause, remedy: error.remedy)
        }
    }
}
