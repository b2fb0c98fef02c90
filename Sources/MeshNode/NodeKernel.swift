internal import Logging
internal import MeshKernel
internal import MeshProxy

/// Capture, and what works on it, for as long as this daemon has the node.
struct NodeKernel: Sendable {
    let capture: NodeCapture
    /// nil where there are no direct connections.
    let direct: DirectTraffic?
    /// nil where DNS by UDP cannot be captured.
    let dns: PodDNS?

    /// Starts to read the kernel's records.
    init(_ capture: NodeCapture, nodeName: String, plane: DataPlane, hasDirect: Bool) throws {
        self.capture = capture
        direct =
            hasDirect
            ? capture.programs.map {
                DirectTraffic(nodeName: nodeName, kernel: $0, plane: plane, logger: Logger(label: "direct"))
            } : nil
        dns =
            capture.dnsObstacle == nil
            ? PodDNS(plane: plane, capture: capture, logger: Logger(label: "dns")) : nil
        try direct?.start()
    }

    /// Reports the records that are there and reads no more. To be called once; it blocks for a moment.
    func stop() { direct?.stop() }
}
