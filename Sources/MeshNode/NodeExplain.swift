internal import MeshDiscovery
internal import MeshKernel
internal import MeshModel

/// Answers how a workload of this node is captured, out of what the configuration wants and what the kernel has.
struct NodeExplain: Sendable {
    let nodeName: String
    let source: FileSource
    let workloads: WorkloadManager
    /// Another one after a hand-over that failed.
    let capture: @Sendable () -> NodeCapture
    /// Why this node has no direct connections, whatever the configuration says; nil: it can have them.
    let directObstacle: String?

    private var kernel: NodeCapture { capture() }

    /// - Parameter destination: to which the way is asked for.
    func answer(_ text: String, to destination: SocketAddress?) -> CaptureAnswer {
        let snapshot = source.state.snapshot
        switch snapshot.search(workload: text) {
        case .unknown(let near): return .unknown(near)
        case .ambiguous(let names): return .ambiguous(names)
        case .found(let workload): return .explained(explain(workload, to: destination, in: snapshot))
        }
    }

    private func explain(
        _ workload: Workload, to destination: SocketAddress?, in snapshot: MeshSnapshot
    ) -> CaptureExplanation {
        var answer = CaptureExplanation(
            workload: CaptureExplanation.Subject(workload), node: nodeName, isCaptured: false,
            level: kernel.level.rawValue, levelReason: kernel.explanation.isEmpty ? nil : kernel.explanation,
            place: kernel.programs?.place
                ?? (kernel.level == .l2 ? "connect hooks, which go with the daemon, and " : "")
                    + "nft rules in the workload's network namespace",
            scope: workload.scope.description, mtls: snapshot.mutualTLSPhrase(of: workload),
            sameNode: snapshot.settings.sameNode.rawValue)
        answer.problem = snapshot.obstacleToCapture(of: workload, node: nodeName)
        if answer.problem != nil { return answer }
        answer.problem = workloads.currentStatus.problems[workload.name]
        guard kernel.workloads.contains(workload.name) else {
            answer.problem = answer.problem ?? "the daemon is about to capture it: ask again in a second"
            return answer
        }
        answer.isCaptured = true
        let condition = kernel.programs?.condition(of: workload.name)
        answer.listeners = condition?.listeners ?? []
        if kernel.adoptable.contains(workload.name), answer.problem == nil {
            answer.problem = "captured by an earlier daemon and not served yet: its connections are refused"
        }
        let facts = facts(workload, in: snapshot)
        answer.flows = kernel.level.flows(facts, counts: kernel.statistics(of: workload.name))
        answer.route = destination.map {
            kernel.level.route(of: workload, to: $0, in: snapshot, node: nodeName, facts)
        }
        answer.neighbours = neighbours(of: workload, in: snapshot)
        return answer
    }

    private func facts(_ workload: Workload, in snapshot: MeshSnapshot) -> CaptureFacts {
        var facts = CaptureFacts(
            addresses: workload.addresses, scope: workload.scope, sameNode: snapshot.settings.sameNode)
        if snapshot.settings.sameNode != .direct {
            facts.directObstacle = DirectObstacle.sameNodeMode(snapshot.settings.sameNode).description
        } else {
            facts.directObstacle = directObstacle
        }
        facts.accelerationObstacle =
            snapshot.acceleration(of: workload) == .off
            ? "acceleration is off for this workload" : kernel.programs?.acceleration.obstacle
        if !kernel.capturesDNS(of: workload.name) {
            facts.dnsObstacle =
                !snapshot.capturesDNS(workload)
                ? "switched off for this workload"
                : kernel.dnsObstacle ?? "it could not be captured: see the problem above or the log"
        }
        facts.kernelServices = snapshot.directServices(node: nodeName)
            .count { 1...CaptureConstants.maximumServiceEndpoints ~= $0.value.count }
        facts.agentCgroups = kernel.programs?.agentCgroups ?? []
        return facts
    }

    private func neighbours(of workload: Workload, in snapshot: MeshSnapshot) -> [CaptureExplanation.Neighbour] {
        let proxied = snapshot.settings.sameNode == .tunnel ? "mTLS" : "T0"
        let others = snapshot.localWorkloads(node: nodeName).filter { $0.name != workload.name }
        return others.sorted { $0.name < $1.name }.map { other in
            let name = other.name.description
            if let why = kernel.programs == nil ? "level \(kernel.level) has no direct connections" : directObstacle {
                return CaptureExplanation.Neighbour(name: name, tier: proxied, note: why)
            }
            do throws(DirectObstacle) {
                let rule = try snapshot.decideDirect(from: workload, to: other, node: nodeName)
                let tier = rule.isAccelerated && kernel.programs?.acceleration.isFit == true ? "T2" : "T1"
                // Those of the proxy itself are nobody's service.
                let own = rule.exceptions.filter { !ProxyPort.isRecursive($0) && $0 != ProxyPort.domain }
                let ports = own.map(String.init).joined(separator: ", ")
                let note =
                    rule.isDirect
                    ? "all ports" + (ports.isEmpty ? "" : " but \(ports), which the proxy decides")
                    : "port \(ports) only; the proxy decides the others"
                return CaptureExplanation.Neighbour(name: name, tier: tier, note: note)
            } catch {
                return CaptureExplanation.Neighbour(name: name, tier: proxied, note: error.description)
            }
        }
    }
}
