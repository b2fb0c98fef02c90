import ArgumentParser
import Foundation
import MeshKernel

/// `culvert preflight`: can this machine run the node proxy, at which level, and what is missing.
struct PreflightCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "preflight",
        abstract: "Can this machine run the node proxy, and what is missing?",
        discussion: """
            Probes the kernel, loads the real programs, attaches them to an empty
            cgroup, and makes real connections in a scratch network namespace. It leaves
            nothing behind; the kernel may load modules that a probe asks for (nf_tables,
            tls). Run it as root; without privilege it says what it could not find out.

            Levels of capture, best first:
              L0  marks at connect, sk_lookup steers (Linux 5.17)
              L1  the same with a table of connections to pass (5.9)
              L2  destinations rewritten at connect, nft inbound (5.8)
              L3  nft both ways, no eBPF
            Between two workloads of one node: T1, no proxy on the way (with L0 or L1);
            T2, bytes around the TCP stack.

            Exit codes: 0 a level is usable (with --require: one that is good enough),
            1 none is, 2 bad usage, 3 could not find out.

            In a container it sees what the container sees. To judge the node from an
            init container, or from a Job over all nodes, give it what the node proxy
            gets: hostNetwork and hostPID; CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW,
            CAP_SYS_ADMIN and CAP_SYS_PTRACE, or privileged; a seccomp profile that
            allows bpf; the host's /sys/fs/cgroup (writable) and /sys/fs/bpf at the same
            places. With /boot and /lib/modules, read-only, it can read the kernel's
            configuration. L2 and L3 need nft in the image.

            Examples:
              culvert preflight
              culvert preflight --require L1 && systemctl start culvert-node
              culvert preflight --cgroup /sys/fs/cgroup/mesh --output json
              culvert preflight --output json |
                jq -r '.checks[] | select(.status == "fail") | .remedy'
            """)

    @Option(help: "The cgroup the connect hooks will attach to (default: the root of cgroup2).")
    var cgroup: String?

    @Option(help: "Where the bpf file system is mounted.")
    var bpffs = "/sys/fs/bpf"

    @Option(
        help: "The level that is good enough: L0, L1, L2 or L3. Exit 1 when the machine's is worse.",
        transform: level)
    var require: CaptureLevel?

    @Option(help: "Print for people (text) or for programs (json).")
    var output = OutputFormat.text

    private static func level(_ text: String) throws -> CaptureLevel {
        guard let level = CaptureLevel(rawValue: text) else {
            throw ValidationError("there is no level '\(text)': use L0, L1, L2 or L3")
        }
        return level
    }

    func run() throws {
        let options = CaptureOptions(nodeName: "preflight", cgroupPath: cgroup, bpffsPath: bpffs)
        do { try Preflight.validate(options) } catch { throw ValidationError("--cgroup: \(error)") }
        let report = Preflight.run(options)
        switch output {
        case .text:
            print(PreflightText(color: isatty(STDOUT_FILENO) == 1, required: require).render(report))
        case .json:
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(report), as: UTF8.self))
        }
        switch require.map(report.meets) ?? report.verdict {
        case .usable: return
        case .unusable: throw ExitCode(1)
        case .unknown: throw ExitCode(3)
        }
    }
}
