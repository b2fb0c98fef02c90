internal import CMeshABI
public import MeshModel

/// Which hook catches which traffic: one table for all levels. Rows differ between levels in their hooks, and in what a
/// level cannot do. Every event stands in exactly one row, so that nothing that was counted goes unexplained.
struct FlowTable {
    typealias Flow = CaptureExplanation.Flow
    typealias Counter = CaptureExplanation.Counter

    let level: CaptureLevel
    let facts: CaptureFacts
    /// nil: the level does not count.
    let counts: CaptureStatistics?

    var flows: [Flow] { outbound + inbound + inside }

    // MARK: Hooks by level

    /// By sk_lookup (L0, L1), by hooks and rules (L2), by rules (L3).
    private var hasPrograms: Bool { level < .l2 }

    private func hooks(_ programs: [String], rewriting: [String]? = nil, rules: [String]) -> [String] {
        hasPrograms ? programs : level == .l2 ? rewriting ?? rules : rules
    }

    private var connectHook: String { "cgroup/connect4|6" }
    private var rewritingHook: String { "cgroup/connect4|6 to its own address, port \(CULVERT_PORT_OUTBOUND)" }
    private var lookupHook: String { level == .l1 ? "sk_lookup (by addresses)" : "sk_lookup" }
    private var markedRoute: String { "fwmark route over lo (table \(CULVERT_ROUTE_TABLE))" }

    private static func chain(_ name: String) -> String { "nft inet \(NftRules.table) \(name)" }

    private var withoutPrograms: String { "level \(level) has no programs for it" }

    // MARK: Outbound

    private var outbound: [Flow] {
        [direct, accelerated, service, proxied, dnsDatagrams, dnsStreams, excludedOutbound, refused, otherProtocols]
    }

    private var direct: Flow {
        let obstacle = hasPrograms ? facts.directObstacle : withoutPrograms
        return Flow(
            id: "outbound.direct", direction: .outbound,
            title: "TCP to a captured workload of this node that policy allows",
            path: "straight to the application: no proxy in the path, one close record each", tier: "T1",
            hooks: hooks([connectHook, "sock_ops", "sk_lookup of the destination"], rules: []),
            isPossible: obstacle == nil, note: obstacle,
            counters: counters([
                (.direct, "connect() let go straight", false),
                (.directLost, "could not be noted; the destination judges it as plaintext", true),
                (.recordLost, "closed without a record: the ring was full", true),
            ]))
    }

    private var accelerated: Flow {
        let obstacle = direct.isPossible ? facts.accelerationObstacle : "it takes direct connections"
        return Flow(
            id: "outbound.accelerated", direction: .outbound,
            title: "of these, to workloads that ask for acceleration as this one does",
            path: "from socket to socket, past TCP", tier: "T2",
            hooks: hooks(["sock_ops", "sk_msg", "sk_skb"], rules: []),
            isPossible: obstacle == nil, note: obstacle,
            counters: counters([
                (.accelerated, "both ends enrolled", false),
                (.accelerationRefused, "an end not enrolled (MPTCP, fast open, a ULP, no room): by TCP", false),
                (.wireFirst, "directions that began by TCP: the other end was not known yet", false),
                (.wireBulk, "turns to TCP: the reader fell behind, or socket memory is short", false),
                (.wireChanged, "turns to TCP: switched off, a ULP, or the peer is gone", false),
            ]))
    }

    private var service: Flow {
        let many = facts.kernelServices
        let isChosen = direct.isPossible && many > 0
        return Flow(
            id: "outbound.service", direction: .outbound, title: "TCP to a service address",
            path: "an endpoint is chosen, then as to that endpoint",
            hooks: hooks([connectHook], rewriting: [rewritingHook], rules: [Self.chain("outbound")]),
            note: isChosen
                ? "for \(many) service ports the kernel chooses, all their endpoints being here; else the proxy does"
                : "the proxy chooses; counted in outbound.proxied")
    }

    private var proxied: Flow {
        let onNode = facts.sameNode == .tunnel ? "" : "as it is to workloads of this node (T0), "
        return Flow(
            id: "outbound.proxied", direction: .outbound, title: "any other TCP, IPv4 and IPv6",
            path: "the proxy, port \(CULVERT_PORT_OUTBOUND): \(onNode)by mutual TLS to other ones of the mesh, "
                + "as it is to the rest", tier: facts.sameNode == .tunnel ? nil : "T0",
            hooks: hooks(
                [connectHook, markedRoute, lookupHook],
                rewriting: [rewritingHook, "sock_ops"], rules: [Self.chain("outbound")]),
            counters: counters([
                (.outboundMarked, "connect() sent to the proxy", false),
                (.outboundSteered, "SYNs that arrived at the proxy", false),
                (.directNoRule, "to a workload of this node, but the proxy decides: see SAME NODE", false),
                (.directStale, "likewise, because policy was just changing", false),
                (.directFull, "likewise, because no further direct connection can be followed", false),
                (.directDevice, "likewise, because the socket was bound to a device", false),
                (.directMoved, "likewise, because another program sent it elsewhere than was allowed", false),
                (.deviceCleared, "sockets unbound from a device so that they could not escape", false),
            ]))
    }

    private var dnsDatagrams: Flow {
        let obstacle = facts.dnsObstacle
        return Flow(
            id: "outbound.dns-udp", direction: .outbound, title: "DNS by UDP, to port \(CULVERT_PORT_DOMAIN)",
            path: obstacle == nil
                ? "the proxy's DNS server, port \(CULVERT_PORT_DNS); the application sees the server it asked"
                : "to the server that was asked",
            hooks: obstacle == nil
                ? hooks(
                    ["cgroup/connect4|6 and sendmsg4|6", "cgroup/recvmsg4|6 on the way back"],
                    rules: [Self.chain("questions"), Self.chain("servers")]) : [],
            isPossible: obstacle == nil, note: obstacle,
            counters: counters([
                (.dnsCaptured, hasPrograms ? "connect() or sendmsg() to a server" : "questions to a server", false),
                (
                    .dnsPassed,
                    hasPrograms
                        ? "left alone: bound to a device, or no alias was free"
                        : "left alone: the workload has no address of that family", false
                ),
                (.dnsRefused, "refused: the proxy's DNS server is not there", true),
            ]))
    }

    private var dnsStreams: Flow {
        Flow(
            id: "outbound.dns-tcp", direction: .outbound, title: "DNS by TCP, to port \(CULVERT_PORT_DOMAIN)",
            path: "as any other TCP; the proxy answers there itself where DNS is captured", hooks: proxied.hooks,
            note: "counted in outbound.proxied")
    }

    private var excludedOutbound: Flow {
        Flow(
            id: "outbound.excluded", direction: .outbound, title: "TCP that annotations keep out of the mesh",
            path: "where it is meant to, in clear text and without policy",
            hooks: hooks(
                [connectHook], rewriting: [connectHook, Self.chain("guard")], rules: [Self.chain("outbound")]),
            isPossible: !facts.scope.isWholeOutbound,
            note: facts.scope.isWholeOutbound ? "no annotation does" : "captured is \(facts.scope)",
            counters: counters([(.exemptExcluded, "connect() left alone", false)]))
    }

    private var refused: Flow {
        let missing = [("IPv4", true), ("IPv6", false)].filter { !facts.has(ipv4: $0.1) }.map(\.0)
        let families = missing.isEmpty ? "" : "the workload has no \(missing.joined(separator: " and no ")) address"
        return Flow(
            id: "outbound.refused", direction: .outbound,
            title: "TCP that could not be captured: IPv6 link-local, a family without an address, no proxy",
            path: "refused at once, never in clear text",
            hooks: hooks([connectHook], rewriting: [connectHook, Self.chain("guard")], rules: [Self.chain("guard")]),
            note: families.isEmpty ? nil : families,
            counters: counters([
                (.refusedNoListener, "no proxy listens: is the daemon starting, or out of descriptors?", true),
                (.refusedNoAddress, "the workload has no address of that family", true),
                (.refusedLinkLocal, "to an IPv6 link-local address", true),
                (.refusedDevice, "the device a socket is bound to could not be cleared", true),
                (.refusedMark, "the kernel did not take the mark", true),
                (.refusedUnnoted, "there was no room to note where it was going", true),
                (.connectionForgotten, "packets of connections that the connection table forgot: reset", true),
            ]))
    }

    private var otherProtocols: Flow {
        Flow(
            id: "outbound.other", direction: .outbound,
            title: "UDP other than DNS, ICMP, SCTP, raw sockets; connections open before capture",
            path: "not captured: as without a mesh", hooks: [], note: "not counted")
    }

    // MARK: Inbound

    private var inbound: [Flow] {
        [tunnel, plaintext, directInbound, probes, excludedInbound, dropped, otherInbound]
    }

    private var tunnel: Flow {
        Flow(
            id: "inbound.tunnel", direction: .inbound, title: "mesh traffic, to port \(CULVERT_PORT_TUNNEL)",
            path: "the proxy's tunnel listener: mutual TLS, policy, then the application",
            hooks: hooks([lookupHook], rules: ["the listener itself"]),
            counters: counters([(.tunnelSteered, "SYNs given to the tunnel listener", false)]))
    }

    private var plaintext: Flow {
        Flow(
            id: "inbound.plaintext", direction: .inbound,
            title: "any other TCP from outside, the machine's own processes too",
            path: "the proxy, port \(CULVERT_PORT_INBOUND): policy for callers without identity, then the application",
            hooks: hooks([lookupHook], rules: [Self.chain("inbound")]),
            note: "where mutual TLS is STRICT the proxy resets it (mtls_required)",
            counters: counters([(.inboundSteered, "SYNs given to the inbound listener", false)]))
    }

    private var directInbound: Flow {
        Flow(
            id: "inbound.direct", direction: .inbound, title: "direct connections from workloads of this node",
            path: "straight to the application", tier: "T1", hooks: hooks([lookupHook], rules: []),
            isPossible: direct.isPossible, note: direct.note,
            counters: counters([(.directPassed, "SYNs let through", false)]))
    }

    private var probes: Flow {
        let isKnown = hasPrograms && !facts.agentCgroups.isEmpty
        let note =
            !hasPrograms
            ? "\(withoutPrograms): probes are plaintext"
            : isKnown
                ? "from \(facts.agentCgroups.joined(separator: ", "))"
                : "no kubelet cgroup was found: probes are plaintext (name it with --kubelet-cgroup)"
        return Flow(
            id: "inbound.probe", direction: .inbound, title: "health probes of the kubelet, known by its cgroup",
            path: "straight to the application, under any policy",
            hooks: isKnown ? [connectHook, "sock_ops", lookupHook] : [], isPossible: isKnown, note: note,
            counters: counters([
                (.probe, "connect() of the kubelet to this workload", false),
                (.probePassed, "SYNs let through", false),
                (.probeLost, "could not be noted and was judged as plaintext", true),
            ]))
    }

    private var excludedInbound: Flow {
        Flow(
            id: "inbound.excluded", direction: .inbound, title: "TCP to ports that annotations keep out of the mesh",
            path: "straight to the application, in clear text and without policy",
            hooks: hooks([lookupHook], rules: [Self.chain("inbound")]), isPossible: !facts.scope.isWholeInbound,
            note: facts.scope.isWholeInbound ? "no annotation does" : "captured is \(facts.scope)",
            counters: counters([(.excludedPassed, "SYNs let through", false)]))
    }

    private var dropped: Flow {
        Flow(
            id: "inbound.dropped", direction: .inbound, title: "SYNs, in and out, that find no listener of the proxy",
            path: hasPrograms ? "dropped, never to the application" : "reset by the kernel",
            hooks: hooks([lookupHook], rules: []),
            counters: counters([
                (.droppedNoListener, "no listener: is the daemon starting?", true),
                (.droppedAssign, "the listener could not take it (wrong family)", true),
            ]))
    }

    private var otherInbound: Flow {
        Flow(
            id: "inbound.other", direction: .inbound, title: "UDP, ICMP, SCTP; connections open before capture",
            path: "not captured: as without a mesh", hooks: [], note: "not counted")
    }

    // MARK: Inside

    private var inside: [Flow] {
        [
            Flow(
                id: "inside.self", direction: .inside,
                title: "loopback, calls of the workload to its own address, multicast",
                path: "left alone: it does not leave the namespace",
                hooks: hooks([connectHook, lookupHook], rewriting: [connectHook], rules: [Self.chain("outbound")]),
                counters: counters([
                    (.exemptLocal, "connect() left alone", false),
                    (.localPassed, "SYNs left alone, those of the proxy's legs to the application too", false),
                ])),
            Flow(
                id: "inside.proxy", direction: .inside,
                title: "the proxy's own connections: legs to the application, tunnels, plain ones onward",
                path: "never captured",
                hooks: hooks(
                    level == .l1 ? [connectHook, "sock_ops", lookupHook] : [connectHook, lookupHook],
                    rewriting: [connectHook, Self.chain("guard")], rules: [Self.chain("outbound")]),
                note: level != .l3
                    ? "known by the proxy's cgroup" + (hasPrograms ? "" : " and the mark \(hex(CULVERT_MARK_PROXY))")
                    : "known by the mark \(hex(CULVERT_MARK_PROXY))",
                counters: counters([
                    (.exemptProxy, "connect() of the proxy", false),
                    (.refusedLeg, "a leg for which there was no room (L1)", true),
                ])),
            Flow(
                id: "inside.host", direction: .inside, title: "processes in the machine's own network namespace",
                path: "not captured: hostNetwork pods are no workloads; to this workload they are plaintext callers",
                hooks: [], note: "counted in inbound.plaintext"),
        ]
    }

    private func hex(_ number: UInt32) -> String { "0x" + String(number, radix: 16) }

    private func counters(_ list: [(event: CaptureEvent, meaning: String, isTrouble: Bool)]) -> [Counter] {
        guard let counts else { return [] }
        return list.filter { counts.counted.contains($0.event) }.map { event, meaning, isTrouble in
            Counter(
                event: event.word, count: counts[event], meaning: meaning, isTrouble: isTrouble,
                reason: event.reason?.rawValue)
        }
    }
}

extension CaptureLevel {
    /// How each kind of a workload's traffic is caught at this level, with what was counted of it.
    public func flows(_ facts: CaptureFacts, counts: CaptureStatistics?) -> [CaptureExplanation.Flow] {
        FlowTable(level: self, facts: facts, counts: counts).flows
    }
}
