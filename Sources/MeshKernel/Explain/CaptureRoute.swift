public import MeshModel

/// Into which row of the table a TCP connection of a workload falls, decided in the order of the hooks, and what the proxy
/// makes of it where it gets it. Pure: what the configuration and the level say, not what a kernel did.
struct CaptureRoute {
    typealias Route = CaptureExplanation.Route

    let level: CaptureLevel
    let facts: CaptureFacts
    let workload: Workload
    let snapshot: MeshSnapshot
    let node: String

    func route(to destination: SocketAddress) -> Route {
        let ip = destination.ip
        func route(_ flow: String, _ tier: String? = nil, _ steps: String...) -> Route {
            Route(destination: destination.description, flow: flow, tier: tier, steps: steps)
        }
        if ip.isLoopback || ip.isUnspecified || ip.isMulticast || workload.addresses.contains(ip) {
            return route("inside.self", nil, "\(ip) does not leave the workload's network namespace")
        }
        if !facts.scope.takesOutbound(to: destination) {
            return route("outbound.excluded", nil, "annotations keep it out: captured is \(facts.scope)")
        }
        if !ip.isIPv4, ip.isLinkLocal {
            return route("outbound.refused", nil, "IPv6 link-local addresses cannot be captured")
        }
        if !facts.has(ipv4: ip.isIPv4) {
            return route("outbound.refused", nil, "the workload has no \(ip.isIPv4 ? "IPv4" : "IPv6") address")
        }
        if destination.port == ProxyPort.domain, snapshot.capturesDNS(workload) {
            return route("outbound.dns-tcp", nil, "the proxy answers DNS by TCP itself")
        }
        let kernel = inKernel(destination)
        if let tier = kernel.tier {
            return Route(destination: destination.description, flow: "outbound.direct", tier: tier, steps: kernel.steps)
        }
        let proxy = inProxy(destination)
        return Route(
            destination: destination.description, flow: "outbound.proxied", tier: proxy.tier,
            steps: kernel.steps + proxy.steps)
    }

    // MARK: The kernel's part

    private func inKernel(_ destination: SocketAddress) -> (tier: String?, steps: [String]) {
        if let obstacle = level < .l2 ? facts.directObstacle : "level \(level) has no direct connections" {
            return (nil, snapshot.workload(at: destination.ip) == nil ? [] : ["not direct: \(obstacle)"])
        }
        guard let service = snapshot.service(at: destination.ip) else {
            guard snapshot.workload(at: destination.ip) != nil else { return (nil, []) }
            let (tier, step) = direct(to: destination)
            return (tier, [step])
        }
        guard let endpoints = snapshot.directServices(node: node)[destination],
            1...CaptureConstants.maximumServiceEndpoints ~= endpoints.count
        else { return (nil, ["service \(service.name): the proxy chooses the endpoint"]) }
        let answers = endpoints.map(direct)
        let tiers = Set(answers.map { $0.tier ?? "T0" }).sorted(by: >)
        let steps = ["service \(service.name): the kernel chooses among \(endpoints.count) endpoints of this node"]
        return (tiers == ["T0"] ? nil : tiers.joined(separator: " or "), steps + answers.map(\.step))
    }

    private func direct(to destination: SocketAddress) -> (tier: String?, step: String) {
        guard let there = snapshot.workload(at: destination.ip) else { return (nil, "\(destination): nobody's") }
        do throws(DirectObstacle) {
            let rule = try snapshot.decideDirect(from: workload, to: there, node: node)
            guard rule.isDirect(port: destination.port) else {
                return (nil, "\(there.name), port \(destination.port): not direct, the proxy judges it")
            }
            let isShort = rule.isAccelerated && facts.accelerationObstacle == nil
            return (isShort ? "T2" : "T1", "\(there.name), port \(destination.port): policy allows it directly")
        } catch {
            return (nil, "\(there.name): not direct: \(error)")
        }
    }

    // MARK: The proxy's part

    private func inProxy(_ destination: SocketAddress) -> (tier: String?, steps: [String]) {
        var chance = SystemRandomNumberGenerator()
        switch snapshot.resolve(from: workload, to: destination, node: node, using: &chance) {
        case .passthrough: return (nil, ["the mesh does not know the address: on as it is, in clear text"])
        case .plain(let address, let known):
            let name = known.workload.map { "\($0.name)" } ?? "it"
            return (nil, ["\(name) is not meshed: to \(address) as it is, in clear text"])
        case .local(let address, let there, _):
            return ("T0", ["to \(there.name) at \(address), inside this node without TLS", policy(of: there, address)])
        case .tunnel(let tunnel, _):
            let step = "by mutual TLS to \(tunnel.workload.name) at \(tunnel.peer), which has to be \(tunnel.identity)"
            if let waypoint = tunnel.viaWaypoint {
                return (nil, [step, "the waypoint \(waypoint) decides from there"])
            }
            return (nil, [step, policy(of: tunnel.workload, tunnel.authority)])
        case .refuse(let reason, _): return (nil, ["the proxy refuses it: \(reason.rawValue)"])
        }
    }

    private func policy(of there: Workload, _ address: SocketAddress) -> String {
        let own = workload.addresses.first { $0.isIPv4 == address.ip.isIPv4 } ?? address.ip
        let request = AuthorizationRequest(
            destination: there, address: address, sourceIP: own, identity: workload.identity)
        switch snapshot.authorize(request) {
        case .allow(let policy): return "policy allows it" + (policy.map { " (\($0))" } ?? ", since none names it")
        case .deny(let reason, let policy):
            return "policy refuses it: \(reason.rawValue)" + (policy.map { " (\($0))" } ?? "")
        }
    }
}

extension CaptureLevel {
    /// How a TCP connection of `workload` to `destination` goes at this level, as `snapshot` has it on `node`.
    public func route(
        of workload: Workload, to destination: SocketAddress, in snapshot: MeshSnapshot, node: String,
        _ facts: CaptureFacts
    ) -> CaptureExplanation.Route {
        CaptureRoute(level: self, facts: facts, workload: workload, snapshot: snapshot, node: node)
            .route(to: destination)
    }
}
