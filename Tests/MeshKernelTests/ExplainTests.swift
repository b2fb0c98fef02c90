import Foundation
import MeshModel
import Testing

@testable import MeshKernel
@testable import culvert

/// The table of `culvert capture explain` and how it is shown: no kernel takes part.
@Suite struct ExplainTests {
    private static let levels: [CaptureLevel] = CaptureLevel.allCases

    private func facts(_ change: (inout CaptureFacts) -> Void = { _ in }) throws -> CaptureFacts {
        var facts = CaptureFacts(
            addresses: [try #require(IPAddress("10.77.0.2")), try #require(IPAddress("fd00:77::2"))],
            accelerationObstacle: "acceleration is off for this workload")
        change(&facts)
        return facts
    }

    private func statistics(
        _ counts: [CaptureEvent: UInt64] = [:], _ level: CaptureLevel = .l0
    ) -> CaptureStatistics {
        let counted: [CaptureEvent]? =
            switch level {
            case .l0, .l1: nil
            case .l2: ConnectRewrite.counted + NftRules.countedWithHooks + NftRules.countedOfDNS
            case .l3: NftRules.counted + NftRules.countedOfDNS
            }
        if let counted { return CaptureStatistics(counted: counted) { counts[$0] ?? 0 } }
        var result = CaptureStatistics()
        result.add(
            (0..<UInt32(CaptureStatistics.abiCount)).map { CaptureEvent(rawValue: $0).flatMap { counts[$0] } ?? 0 })
        return result
    }

    private func explanation(
        _ level: CaptureLevel = .l0, _ counts: [CaptureEvent: UInt64] = [:], _ facts: CaptureFacts
    ) throws -> CaptureExplanation {
        let workload = Workload(
            name: ObjectName(namespace: "default", name: "shop"), addresses: facts.addresses, node: "node-1",
            netns: "/run/netns/shop")
        return CaptureExplanation(
            workload: .init(workload), node: "node-1", isCaptured: true, level: level.rawValue, place: "cgroup /x",
            scope: "\(facts.scope)", mtls: "PERMISSIVE (Mesh)", sameNode: facts.sameNode.rawValue,
            listeners: [.init(role: "outbound", port: 15001, isPresent: true)],
            flows: level.flows(facts, counts: statistics(counts, level)),
            neighbours: [.init(name: "default/near", tier: "T1", note: "all ports")])
    }

    @Test(arguments: levels)
    func everythingThatIsCountedIsExplainedInOnePlace(level: CaptureLevel) throws {
        let counts = statistics([:], level)
        let events = try level.flows(facts(), counts: counts).flatMap { $0.counters.map(\.event) }
        #expect(events.sorted() == counts.counted.map(\.word).sorted())
        #expect(level > .l1 || counts.counted.count == CaptureEvent.allCases.count)
    }

    @Test(arguments: levels) func rowsAreWholeAtEveryLevel(level: CaptureLevel) throws {
        let flows = try level.flows(facts(), counts: nil)
        #expect(Set(flows.map(\.id)).count == flows.count)
        for flow in flows {
            #expect(flow.id.hasPrefix("\(flow.direction)."))
            #expect(!flow.title.isEmpty && !flow.path.isEmpty)
            #expect(flow.isPossible || flow.note != nil, "\(flow.id) says no and not why")
        }
        // The same kinds of traffic, whatever catches them.
        #expect(try flows.map(\.id) == CaptureLevel.l0.flows(facts(), counts: nil).map(\.id))
        let names = flows.flatMap(\.hooks).joined(separator: " ")
        #expect(names.contains("nft") == (level > .l1) && names.contains("cgroup/connect") == (level != .l3))
    }

    @Test func whatDecidesIsSaid() throws {
        func flow(_ id: String, _ level: CaptureLevel = .l0, _ change: (inout CaptureFacts) -> Void = { _ in }) throws
            -> CaptureExplanation.Flow
        {
            try #require(level.flows(facts(change), counts: nil).first { $0.id == id })
        }
        #expect(try flow("outbound.direct").isPossible && flow("inbound.direct").isPossible)
        let proxied = try flow("outbound.direct") { $0.directObstacle = "Mesh.spec.sameNode is proxy" }
        #expect(!proxied.isPossible && proxied.note == "Mesh.spec.sameNode is proxy")
        #expect(try flow("outbound.direct", .l3).note == "level L3 has no programs for it")
        #expect(try !flow("outbound.accelerated").isPossible)
        #expect(try flow("outbound.accelerated") { $0.accelerationObstacle = nil }.isPossible)
        #expect(
            try flow("outbound.accelerated") { ($0.accelerationObstacle, $0.directObstacle) = (nil, "no") }.note
                == "it takes direct connections")
        #expect(try flow("outbound.service").note == "the proxy chooses; counted in outbound.proxied")
        #expect(try flow("outbound.service") { $0.kernelServices = 3 }.note?.hasPrefix("for 3 service ports") == true)
        for level in Self.levels {
            #expect(try flow("outbound.dns-udp", level).isPossible)
            let passed = try flow("outbound.dns-udp", level) { $0.dnsObstacle = "switched off" }
            #expect(!passed.isPossible && passed.note == "switched off" && passed.hooks == [])
            #expect(passed.path == "to the server that was asked")
        }
        #expect(try flow("outbound.dns-udp", .l3).hooks == ["nft inet culvert questions", "nft inet culvert servers"])
        #expect(try !flow("outbound.excluded").isPossible && !flow("inbound.excluded").isPossible)
        let excluding = CaptureScope(excludedOutboundPorts: [9000], excludedInboundPorts: [9090])
        #expect(
            try flow("outbound.excluded") { $0.scope = excluding }.note
                == "captured is outbound all but port 9000; inbound all but port 9090")
        #expect(try flow("inbound.excluded") { $0.scope = excluding }.isPossible)
        #expect(try flow("outbound.refused").note == nil)
        #expect(
            try flow("outbound.refused") { $0.addresses.removeLast() }.note == "the workload has no IPv6 address")
        #expect(try flow("inbound.probe").note?.contains("--kubelet-cgroup") == true)
        #expect(try flow("inbound.probe") { $0.agentCgroups = ["/k"] }.note == "from /k")
        #expect(try flow("inbound.probe", .l3) { $0.agentCgroups = ["/k"] }.isPossible == false)
        #expect(try flow("outbound.proxied") { $0.sameNode = .tunnel }.tier == nil)
    }

    @Test func peopleSeeWhatMattersFirst() throws {
        let text = CaptureText(color: false, isFull: false).render(
            try explanation(.l0, [.outboundMarked: 12, .outboundSteered: 12, .refusedNoListener: 3], facts()))
        #expect(
            text.hasPrefix(
                """
                default/shop on node-1: captured at level L0
                  trouble     3 connect_refused_no_listener, see outbound.refused
                  identity    spiffe://cluster.local/ns/default/sa/default
                  addresses   10.77.0.2, fd00:77::2
                  namespace   /run/netns/shop
                  hooks       cgroup /x
                  takes       outbound all; inbound all
                  mTLS        PERMISSIVE (Mesh)
                  same node   direct
                  listeners   outbound 15001

                OUTBOUND: what the workload sends
                  T1  TCP to a captured workload of this node that policy allows [outbound.direct]
                      way    straight to the application: no proxy in the path, one close record each
                      hooks  cgroup/connect4|6 > sock_ops > sk_lookup of the destination
                      count  none so far

                """), "\(text)")
        #expect(text.contains("      count  12 outbound_marked: connect() sent to the proxy\n"))
        #expect(text.contains("             12 outbound_steered: SYNs that arrived at the proxy\n"))
        #expect(text.contains("      count  3 connect_refused_no_listener: "))
        #expect(text.contains("[proxy_unavailable]"))
        // At zero, and not possible here.
        let flat = text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        #expect(!text.contains("direct_no_rule") && flat.contains("not now: acceleration is off for this workload"))
        #expect(text.hasSuffix("SAME NODE: connections of the workload to\n  T1    default/near  all ports"))
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 120 })
    }

    @Test func everythingIsThereOnDemandAndTroubleIsRed() throws {
        var answer = try explanation(.l0, [.refusedNoListener: 3], facts())
        answer.listeners.append(.init(role: "dns", port: 15053, isPresent: false))
        answer.problem = "port 15001 is taken"
        let text = CaptureText(color: true, isFull: true).render(answer)
        for event in CaptureEvent.allCases { #expect(text.contains(" \(event.word): "), "\(event)") }
        func isRed(_ words: String) -> Bool {
            text.split(separator: "\n").contains { $0.contains(words) && $0.hasPrefix("\u{1b}[31m") }
        }
        #expect(isRed("trouble     3 connect_refused_no_listener"))
        #expect(
            isRed("3 connect_refused_no_listener: ") && isRed("problem     port 15001") && isRed("dns 15053 MISSING"))
        #expect(!isRed("0 syn_dropped_no_listener"))
    }

    @Test func oneWayIsShownWithItsRowAlone() throws {
        var answer = try explanation(.l0, [.direct: 2], facts())
        answer.route = .init(
            destination: "10.96.0.1:80", flow: "outbound.direct", tier: "T1", steps: ["a service", "an endpoint"])
        let text = CaptureText(color: false, isFull: false).render(answer)
        #expect(
            text.hasSuffix(
                """

                TO 10.96.0.1:80
                  T1  outbound.direct: a service
                      then an endpoint

                  T1  TCP to a captured workload of this node that policy allows [outbound.direct]
                      way    straight to the application: no proxy in the path, one close record each
                      hooks  cgroup/connect4|6 > sock_ops > sk_lookup of the destination
                      count  2 direct: connect() let go straight
                """), "\(text)")
        #expect(CaptureText(color: false, isFull: true).render(answer).contains("INBOUND"))
    }

    @Test func aWorkloadThatIsNotCapturedHasItsReasonAndNoTable() throws {
        var answer = try explanation(.l0, [:], facts())
        (answer.isCaptured, answer.problem) = (false, "it belongs to node node-2: ask the daemon there")
        (answer.flows, answer.neighbours, answer.listeners) = ([], [], [])
        #expect(
            CaptureText(color: false, isFull: false).render(answer) == """
                default/shop on node-1: not captured
                  problem     it belongs to node node-2: ask the daemon there
                  identity    spiffe://cluster.local/ns/default/sa/default
                  addresses   10.77.0.2, fd00:77::2
                  namespace   /run/netns/shop
                """)
    }

    @Test(arguments: levels) func theAnswerGoesThroughJSONUnharmed(level: CaptureLevel) throws {
        let answer = try explanation(level, [.probe: .max], facts())
        #expect(try JSONDecoder().decode(CaptureExplanation.self, from: JSONEncoder().encode(answer)) == answer)
    }

    @Test(arguments: [("default/shop", "default/shop"), ("a b", "a%20b"), ("x&y=#+é", "x%26y%3D%23%2B%C3%A9")])
    func namesAreQuotedInTheQuestion(name: String, quoted: String) {
        #expect(CaptureQuestion(workload: name).path == "/capture?workload=\(quoted)")
    }
}

/// What the kernel has of a workload, against what is done to it.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class CaptureConditionTests {
    let lab: Lab
    var capture: KernelCapture?
    let proxy: Proxy

    init() throws {
        lab = try Lab()
        do {
            capture = try KernelCapture(options: lab.options)
            proxy = try Proxy(in: lab.namespace(lab.pod))
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        proxy.close()
        try? capture?.uninstall()
        lab.tearDown()
    }

    private func condition() throws -> CaptureCondition? { try #require(capture).condition(of: lab.name) }

    @Test func itIsWhatTheMapsSay() throws {
        #expect(try condition() == nil)
        try lab.attach(#require(capture), proxy)
        let served = try #require(try condition())
        #expect(served.listeners.map(\.role) == ["outbound", "inbound", "tunnel"])
        #expect(served.listeners.allSatisfy { $0.isPresent } && !served.capturesDNS && !served.isAwaited)
        let place = try #require(capture).place
        #expect(place.contains(lab.cgroup) && place.contains(lab.bpffs))

        proxy.close()
        let empty = try #require(try condition())
        #expect(empty.listeners.count == 3 && !empty.listeners.contains { $0.isPresent })

        capture = nil
        capture = try KernelCapture(options: lab.options)
        #expect(try #require(try condition()).isAwaited)
    }
}
