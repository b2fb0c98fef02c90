import Foundation
import Glibc
import MeshKernel
import MeshModel
import MeshRuntime

//     namespace "pod"                                   namespace "out" (never captured)
//     10.NN.0.2  fd00:NN::2  e0 ───────── veth ──────── e1  10.NN.0.1  fd00:NN::1
//     cgroup LAB/apps: the applications                 cgroup LAB/apps as well
//     the test process, outside LAB, plays the proxy
//
/// Two namespaces, a cgroup subtree and a bpffs of their own; everything goes with `tearDown`.
final class Lab {
    let id: String
    let cgroup: String
    let bpffs: String
    let pod: String
    let out: String
    let options: CaptureOptions
    let v4 = IPAddress("10.77.0.2")!
    let v6 = IPAddress("fd00:77::2")!
    /// False on a kernel booted without IPv6; the tests that need it fail there.
    let hasIPv6 = access("/proc/sys/net/ipv6", F_OK) == 0
    var addresses: [IPAddress] { hasIPv6 ? [v4, v6] : [v4] }
    let name = ObjectName(namespace: "default", name: "shop")

    private var servers: [Background] = []
    private static let counter = Counter()

    init() throws {
        guard geteuid() == 0 else { throw ShellFailure(description: "these tests need root: run Deploy/test as root") }
        id = "cvk\(getpid())n\(Self.counter.next())"
        let mount = try shell("findmnt -n -o TARGET -t cgroup2 --first-only").trimmingCharacters(
            in: .whitespacesAndNewlines)
        cgroup = "\(mount)/\(id)"
        bpffs = "/tmp/\(id)"
        pod = "\(id)p"
        out = "\(id)o"
        options = CaptureOptions(
            nodeName: "\(id).test", cgroupPath: cgroup, bpffsPath: bpffs, runtimeDirectory: "/tmp/\(id)run")
        do { try build() } catch {
            tearDown()
            throw error
        }
    }

    private func build() throws {
        try FileManager.default.createDirectory(atPath: "\(cgroup)/apps", withIntermediateDirectories: true)
        try FileManager.default.createDirectory(atPath: bpffs, withIntermediateDirectories: true)
        try shell("mount -t bpf -o mode=0700 bpf \(bpffs)")
        for namespace in [pod, out] {
            try shell("ip netns add \(namespace)")
            try shell("ip -n \(namespace) link set lo up")
        }
        try shell("ip -n \(pod) link add e0 type veth peer name e1 netns \(out)")
        for (namespace, device, host) in [(pod, "e0", 2), (out, "e1", 1)] {
            try shell("ip -n \(namespace) addr add 10.77.0.\(host)/24 dev \(device)")
            if hasIPv6 {
                // No link-local address: it would appear only when its duplicate address detection is over, in the
                // middle of a test that compares the namespace before and after.
                try shell("ip -n \(namespace) link set \(device) addrgenmode none")
                try shell("ip -n \(namespace) addr add fd00:77::\(host)/64 dev \(device) nodad")
            }
            try shell("ip -n \(namespace) link set \(device) up")
        }
        try shell("ip -n \(pod) route add default via 10.77.0.1")
        if hasIPv6 { try shell("ip -n \(pod) -6 route add default via fd00:77::1") }
    }

    func tearDown() {
        for server in servers { server.stop() }
        try? NodeCapture.uninstall(options: options)
        for namespace in [pod, out] { _ = try? shell("ip netns del \(namespace)") }
        _ = try? shell("umount \(bpffs)")
        rmdir(bpffs)
        _ = try? shell("rm -rf \(options.runtimeDirectory)")
        for directory in ["\(cgroup)/apps", "\(cgroup)/culvert-node.\(options.nodeName)", cgroup] { rmdir(directory) }
    }

    // MARK: applications

    func inside(_ namespace: String, cgroup group: String = "apps") -> [String] {
        [
            "sh", "-c", "echo $$ > \(cgroup)/\(group)/cgroup.procs && exec \"$@\"", "sh", "nsenter",
            "--net=/run/netns/\(namespace)",
        ]
    }

    func connect(in namespace: String, _ host: String, _ port: UInt16, _ options: String...) throws -> Connection {
        let outcome = try run(inside(namespace) + ["python3", "-c", Applications.client, host, "\(port)"] + options)
        guard outcome.status == 0 else { throw ShellFailure(description: "client: \(outcome.errors)") }
        return try JSONDecoder().decode(Connection.self, from: Data(outcome.output.utf8))
    }

    /// Runs a Python program to its end; what it prints.
    func python(
        in namespace: String, cgroup: String = "apps", _ program: String, _ arguments: [String]
    ) throws -> String {
        let outcome = try run(inside(namespace, cgroup: cgroup) + ["python3", "-c", program] + arguments)
        guard outcome.status == 0 else { throw ShellFailure(description: "\(arguments): \(outcome.errors)") }
        return outcome.output
    }

    func serve(in namespace: String, port: UInt16) throws {
        servers.append(try Background(inside(namespace) + ["python3", "-c", Applications.server, "\(port)"]))
    }

    /// A client that connects, sends a byte and waits for the end of the connection.
    func hold(in namespace: String, _ host: String, _ port: UInt16) throws -> Background {
        try Background(inside(namespace) + ["python3", "-c", Applications.holder, host, "\(port)"])
    }

    func stopServers() {
        for server in servers { server.stop() }
        servers = []
    }

    /// Rules, routes, settings and filters of a namespace, the workload's if none is named, as other programs see them.
    /// Without link-local IPv6: those addresses come up some time after their device.
    func surroundings(of namespace: String? = nil) throws -> String {
        let namespace = namespace ?? pod
        var text = try shell("ip netns exec \(namespace) nft list ruleset")
        for family in ["-4", "-6"] {
            text += try shell("ip -n \(namespace) \(family) rule")
            text += try shell("ip -n \(namespace) \(family) route show table all")
        }
        for setting in ["ipv4.tcp_fwmark_accept", "ipv4.fwmark_reflect", "ipv6.fwmark_reflect"] {
            text += try shell("ip netns exec \(namespace) sysctl net.\(setting)")
        }
        return text.split(separator: "\n").filter { !$0.contains("fe80:") && !$0.contains("ff00:") }.joined(
            separator: "\n")
    }

    // MARK: the proxy's side

    func namespace(_ name: String) throws -> NetworkNamespace { try NetworkNamespace(path: "/run/netns/\(name)") }

    func cookie(_ name: String) throws -> UInt64 { try namespace(name).cookie }

    func withDescriptor<Value>(_ name: String, _ body: (Int32) throws -> Value) throws -> Value {
        let descriptor = open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        return try body(descriptor)
    }

    @discardableResult
    func attach(
        _ capture: KernelCapture, _ proxy: Proxy, name: ObjectName? = nil, addresses: [IPAddress]? = nil,
        scope: CaptureScope = CaptureScope(), in namespace: String? = nil
    ) throws -> CaptureHandle {
        let namespace = namespace ?? pod
        let cookie = try cookie(namespace)
        return try withDescriptor(namespace) { descriptor in
            try capture.attach(
                name ?? self.name, namespace: descriptor, cookie: cookie, addresses: addresses ?? self.addresses,
                scope: scope, listeners: proxy.listeners)
        }
    }
}

private final class Counter: @unchecked Sendable {
    // Suites are serialised; the lock is for the compiler's peace and a future parallel run.
    private let lock = NSLock()
    private var value = 0
    func next() -> Int {
        lock.withLock {
            value += 1
            return value
        }
    }
}
