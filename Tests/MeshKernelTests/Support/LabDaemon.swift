import Glibc
import MeshModel
import MeshRuntime

@testable import MeshKernel

/// What a process of its own needs to play a daemon in somebody's lab: killed there, it leaves what a daemon leaves.
struct LabDaemon: Codable, Sendable {
    let nodeName: String
    let cgroup: String
    let bpffs: String
    let runDirectory: String
    let pod: String
    let level: CaptureLevel.RawValue
    let step: CaptureStep.RawValue
    let redirectStep: RedirectStep.RawValue

    init(
        _ lab: Lab, level: CaptureLevel = .l0, endingAt step: CaptureStep = .dnsCaptured,
        or redirectStep: RedirectStep = .ruled
    ) {
        nodeName = lab.options.nodeName
        cgroup = lab.cgroup
        bpffs = lab.bpffs
        runDirectory = lab.options.runtimeDirectory
        pod = lab.pod
        self.level = level.rawValue
        self.step = step.rawValue
        self.redirectStep = redirectStep.rawValue
    }

    private var options: CaptureOptions {
        CaptureOptions(
            nodeName: nodeName, cgroupPath: cgroup, bpffsPath: bpffs, runtimeDirectory: runDirectory)
    }

    private var addresses: [IPAddress] { ["10.77.0.2", "fd00:77::2"].compactMap(IPAddress.init) }

    /// Captures the pod with a scope of its own, and is killed after the step.
    func dieAtStep() throws {
        let last = step
        let capture = try KernelCapture(options: options, acceleration: nil) { step in
            if step.rawValue == last { kill(getpid(), SIGKILL) }
        }
        let proxy = try Proxy(in: .init(path: "/run/netns/\(pod)"))
        let namespace = open("/run/netns/\(pod)", O_RDONLY | O_CLOEXEC)
        var scope = CaptureScope()
        scope.excludedOutboundPorts = [9999]
        try capture.attach(
            ObjectName(namespace: "default", name: "shop"), namespace: namespace,
            cookie: NetworkNamespace(path: "/run/netns/\(pod)").cookie, addresses: addresses, scope: scope,
            listeners: proxy.listeners)
        try proxy.captureDNS {
            try capture.captureDNS(of: ObjectName(namespace: "default", name: "shop"), namespace: $0, socket: $1)
        }
    }

    /// The same by rules, at L2 or L3.
    func dieAtRedirectStep() throws {
        guard let level = CaptureLevel(rawValue: level) else { throw ShellFailure(description: "no level \(level)") }
        let last = redirectStep
        let capture = try RedirectCapture(options: options, level: level) { step in
            if step.rawValue == last { kill(getpid(), SIGKILL) }
        }
        let raw = open("/run/netns/\(pod)", O_RDONLY | O_CLOEXEC)
        _ = try capture.attach(
            ObjectName(namespace: "default", name: "shop"), namespace: Descriptor(adopting: raw), addresses: addresses,
            scope: CaptureScope())
    }

    /// Runs in the cgroup that it captures, captures the pod, and ends as it is told.
    func capture(thenKilled: Bool) throws {
        guard Files.write("\(getpid())", to: "\(cgroup)/cgroup.procs") == 0, let level = CaptureLevel(rawValue: level)
        else { throw ShellFailure(description: "no daemon can run in \(cgroup)") }
        let capture = try NodeCapture(options: options, level: level)
        let proxy = try Proxy(in: .init(path: "/run/netns/\(pod)"), isTranslated: capture.translatesDestinations)
        let namespace = open("/run/netns/\(pod)", O_RDONLY | O_CLOEXEC)
        try capture.attach(
            ObjectName(namespace: "default", name: "shop"), namespace: namespace, addresses: addresses,
            listeners: proxy.listeners)
        try proxy.captureDNS {
            try capture.captureDNS(of: ObjectName(namespace: "default", name: "shop"), namespace: $0, socket: $1)
        }
        if thenKilled { kill(getpid(), SIGKILL) }
        proxy.close()
        exit(EXIT_SUCCESS)
    }
}
