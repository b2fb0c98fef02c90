/// A network namespace of a lab: a node, a pod, or the wire between the nodes.
public struct LabHost: Sendable, Hashable {
    /// Its short name in the lab, for instance `node-1` or `shop`.
    public let name: String
    /// The namespace's mount, as `Workload.spec.netns` and nsenter(1) want it.
    public let namespacePath: String
    /// Its cgroup2 folder. A node's holds its pods' and is what `culvert-node --cgroup` gets.
    public let cgroup: String
    /// Empty for the wire.
    public let v4: String
    /// Empty for the wire.
    public let v6: String
    /// 1 for the first node; for a pod its node's number; 0 for the wire.
    public let nodeNumber: Int
}
