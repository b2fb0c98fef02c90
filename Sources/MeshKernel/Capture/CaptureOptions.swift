public import MeshModel

/// Where capture attaches and keeps its pins.
public struct CaptureOptions: Sendable {
    /// Letters, digits, `-` and `.`; part of the pin path and of the lock's name.
    public var nodeName: String
    /// The cgroup whose processes are captured (those of meshed namespaces); nil: the root of the cgroup2 mount.
    public var cgroupPath: String?
    /// The cgroup of the node's agent, whose health probes pass by every policy; nil: where a kubelet usually runs.
    public var kubeletCgroup: String?
    public var bpffsPath: String
    /// Holds the lock file `NODE.lock`.
    public var runtimeDirectory: String

    public init(
        nodeName: String, cgroupPath: String? = nil, kubeletCgroup: String? = nil, bpffsPath: String = "/sys/fs/bpf",
        runtimeDirectory: String = "/run/culvert"
    ) {
        self.nodeName = nodeName
        self.cgroupPath = cgroupPath
        self.kubeletCgroup = kubeletCgroup
        self.bpffsPath = bpffsPath
        self.runtimeDirectory = runtimeDirectory
    }
}

/// The listening sockets of one workload, made inside its namespace: transparent, dual-stack. With one socket per core
/// (SO_REUSEPORT) any member stands for its group: the kernel spreads connections over all of them.
public struct CaptureListeners: Sendable {
    public var outbound: Int32
    public var inbound: Int32
    public var tunnel: Int32

    public init(outbound: Int32, inbound: Int32, tunnel: Int32) {
        self.outbound = outbound
        self.inbound = inbound
        self.tunnel = tunnel
    }
}

/// What capture knows of one workload.
public struct CaptureHandle: Hashable, Sendable {
    public let workload: ObjectName
    /// The cookie of its network namespace (SO_NETNS_COOKIE): the name the kernel knows it by.
    public let cookie: UInt64
    /// Its place in the listener map.
    public let slot: UInt32
    /// Taken over from an earlier daemon; the hooks were never away.
    public let adopted: Bool
    /// How many entries of its scope found no room in the kernel's maps. What they keep out is captured.
    public let unplaced: Int
}

/// What came of capturing a workload.
public struct CaptureOutcome: Hashable, Sendable {
    /// Taken over from an earlier daemon without a gap.
    public let adopted: Bool
    /// How many entries of its scope found no room in the kernel's maps. What they keep out is captured.
    public let unplaced: Int
}
