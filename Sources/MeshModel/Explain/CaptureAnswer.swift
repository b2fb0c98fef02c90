/// What a node answers to the question how a workload is captured.
public enum CaptureAnswer: Hashable, Sendable {
    case explained(CaptureExplanation)
    /// Several workloads have this name.
    case ambiguous([ObjectName])
    /// With names that somebody may have meant.
    case unknown([ObjectName])
}

/// Why there is no explanation, as `/capture` says it.
public struct CaptureRefusal: Codable, Hashable, Sendable {
    /// A sentence.
    public var error: String
    /// Names to ask for instead.
    public var candidates: [String]

    public init(error: String, candidates: [String]) {
        self.error = error
        self.candidates = candidates
    }
}

extension MeshSnapshot {
    /// Why a node does not capture a workload; nil: it is to be captured.
    public func obstacleToCapture(of workload: Workload, node: String) -> String? {
        if isCaptured(workload, node: node) { return nil }
        if workload.node != node { return "it belongs to node \(workload.node): ask the daemon there" }
        if workload.waypointOf != nil { return "it is a waypoint, which speaks HBONE itself" }
        if workload.transport == .tcp { return "its protocol is TCP: not meshed" }
        if !isMeshed(workload) {
            return "the label \(Labels.dataplaneMode): none, its own or its Namespace's, keeps it out of the mesh"
        }
        return "it names no network namespace (spec.netns)"
    }
}
