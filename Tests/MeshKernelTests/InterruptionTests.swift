import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// A capture that is cut short anywhere leaves nothing that the next daemon does not find and put right.
@Suite(.serialized, .timeLimit(.minutes(3)))
final class InterruptionTests {
    let lab: Lab

    init() throws { lab = try Lab() }
    deinit { lab.tearDown() }

    /// That no workload is left in maps and pins.
    private func expectNothing(
        in capture: KernelCapture, _ step: CaptureStep, location: SourceLocation = #_sourceLocation
    ) {
        let objects = capture.objects
        #expect(capture.workloads.isEmpty, "\(step)", sourceLocation: location)
        #expect(objects.pods.keys.isEmpty && objects.names.keys.isEmpty, "\(step)", sourceLocation: location)
        #expect(objects.endpoints.keys.isEmpty, "\(step)", sourceLocation: location)
        #expect(objects.dns.pods.keys.isEmpty, "\(step)", sourceLocation: location)
        #expect(
            objects.scopes.ports.keys.isEmpty && objects.scopes.ranges.keys.isEmpty, "\(step)", sourceLocation: location
        )
        for slot in UInt32(0)..<4 {
            for role in ListenerRole.allCases {
                #expect(objects.listeners.value(for: role.key(slot: slot)) == nil, "\(step)", sourceLocation: location)
            }
        }
        let links = Files.names(in: capture.pins.directory).filter { $0.hasPrefix("lookup_") }
        #expect(links == [], "\(step)", sourceLocation: location)
    }

    @Test func aDaemonKilledAtAnyStepLeavesNothingBehindTheNextOne_P22() async throws {
        try lab.serve(in: lab.out, port: 8080)
        let before = try lab.surroundings()
        for step in CaptureStep.allCases {
            let daemon = LabDaemon(lab, endingAt: step)
            await #expect(processExitsWith: .signal(SIGKILL), "\(step)") { [daemon = daemon as LabDaemon] in
                try daemon.dieAtStep()
            }
            // Until the entry is active the workload is not captured; from then on it is refused.
            let meanwhile = try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=direct")
            let isCaptured = [.active, .dnsRouted, .dnsCaptured].contains(step)
            #expect(meanwhile.error == (isCaptured ? "ECONNREFUSED" : ""), "\(step)")

            let capture = try KernelCapture(options: lab.options)
            #expect(capture.adoptable == ([.named, .scoped].contains(step) ? [] : [lab.name]), "\(step)")
            _ = capture.sweep(keeping: [])
            expectNothing(in: capture, step)
            #expect(try lab.surroundings() == before, "\(step)")
            let proxy = try Proxy(in: lab.namespace(lab.pod))
            try lab.attach(capture, proxy)
            #expect(try lab.connect(in: lab.pod, "10.77.0.1", 9999).error == "", "no exclusion is left: \(step)")
            #expect(proxy.accept(proxy.outbound).map { Glibc.close($0.socket) } == 0, "\(step)")
            try capture.uninstall()
            #expect(try lab.surroundings() == before, "\(step)")
        }
    }

    @Test func aDaemonKilledAtAnyStepCanBeUninstalled_P22() async throws {
        let before = try lab.surroundings()
        for step in CaptureStep.allCases {
            let daemon = LabDaemon(lab, endingAt: step)
            await #expect(processExitsWith: .signal(SIGKILL), "\(step)") { [daemon = daemon as LabDaemon] in
                try daemon.dieAtStep()
            }
            try KernelCapture.uninstall(options: lab.options)
            #expect(try lab.surroundings() == before, "\(step)")
            #expect(Files.inode("\(lab.bpffs)/culvert") == nil, "\(step)")
        }
    }

    @Test func aPodDeletedAtAnyStepLeavesNothing_P22() throws {
        for step in CaptureStep.allCases {
            let pod = "\(lab.id)-\(step.rawValue)"
            try shell("ip netns add \(pod)")
            try shell("ip -n \(pod) link set lo up")
            try shell("ip -n \(pod) addr add 10.78.0.2/32 dev lo")
            let capture = try KernelCapture(options: lab.options, acceleration: nil) { reached in
                if reached == step { _ = try? shell("ip netns del \(pod)") }
            }
            var proxy: Proxy? = try Proxy(in: lab.namespace(pod))
            try lab.attach(
                capture, #require(proxy), addresses: [#require(IPAddress("10.78.0.2"))], in: pod)
            try proxy?.captureDNS { try capture.captureDNS(of: lab.name, namespace: $0, socket: $1) }
            #expect(Files.inode("/run/netns/\(pod)") == nil, "\(step) came")
            proxy = nil
            try capture.detach(lab.name)
            expectNothing(in: capture, step)
            try capture.uninstall()
        }
    }

    @Test func anAddressThatGoesMeanwhileIsAnErrorAndLeavesNothing_P22() throws {
        for step in [CaptureStep.named, .scoped, .settingsSaved, .settingsChanged] {
            let before = try lab.surroundings()
            try shell("ip -n \(lab.pod) addr add 10.77.0.9/24 dev e0")
            let gone = try #require(IPAddress("10.77.0.9"))
            let pod = lab.pod
            let capture = try KernelCapture(options: lab.options, acceleration: nil) { reached in
                if reached == step { _ = try? shell("ip -n \(pod) addr del 10.77.0.9/24 dev e0") }
            }
            let proxy = try Proxy(in: lab.namespace(lab.pod))
            #expect {
                try lab.attach(capture, proxy, addresses: [gone])
            } throws: { ($0 as? KernelError)?.kind == .addressMissing(gone) }
            expectNothing(in: capture, step)
            #expect(try lab.surroundings() == before, "\(step)")
            try capture.uninstall()
        }
    }

    @Test func aNamespaceThatHasTheNumberOfAnotherNowIsLeftAlone_P22() throws {
        var capture: KernelCapture? = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        let handle = try lab.attach(#require(capture), proxy)
        // As if the pod's namespace were gone and its inode given to this one, which has rules and settings of its own.
        try shell("ip netns exec \(lab.out) sysctl -qw net.ipv4.fwmark_reflect=1 net.ipv4.tcp_fwmark_accept=1")
        let before = try lab.surroundings(of: lab.out)
        let objects = try #require(capture).objects
        var pod = try #require(objects.pods.value(for: handle.cookie))
        let inode = UInt32(try #require(Files.inode("/run/netns/\(lab.out)")))
        // `namespace_inode` of the C structure.
        withUnsafeMutableBytes(of: &pod) { $0.storeBytes(of: inode, toByteOffset: 8, as: UInt32.self) }
        try objects.pods.set(pod, for: handle.cookie)
        capture = nil
        let next = try KernelCapture(options: lab.options)
        #expect(next.sweep(keeping: []) == [lab.name])
        expectNothing(in: next, .active)
        #expect(try lab.surroundings(of: lab.out) == before)
        try next.uninstall()
    }

    // MARK: Capture by rules

    /// The steps of a level; hooks are L2's alone.
    private static let redirectSteps: [(CaptureLevel, RedirectStep)] = [CaptureLevel.l2, .l3].flatMap { level in
        RedirectStep.allCases.filter { level == .l2 || $0 != .hooked }.map { (level, $0) }
    }

    @Test(arguments: redirectSteps, [true, false])
    func aDaemonKilledAtAnyStepOfItsRulesLeavesNothing_P22(
        at place: (level: CaptureLevel, step: RedirectStep), isUninstalled: Bool
    ) async throws {
        try lab.serve(in: lab.out, port: 8080)
        let before = try lab.surroundings()
        let daemon = LabDaemon(lab, level: place.level, or: place.step)
        await #expect(processExitsWith: .signal(SIGKILL)) { [daemon = daemon as LabDaemon] in
            try daemon.dieAtRedirectStep()
        }
        // The rules come last and at once: without them nothing is captured, with them all of it is refused.
        let meanwhile = try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=direct")
        #expect(meanwhile.error == (place.step == .ruled ? "ECONNREFUSED" : ""))
        if isUninstalled {
            try NodeCapture.uninstall(options: lab.options)
        } else {
            let next = try RedirectCapture(options: lab.options, level: place.level)
            let isFound = ![.hooked].contains(place.step)
            #expect(next.adoptable == (isFound ? [lab.name] : []))
            #expect(next.sweep(keeping: []) == (isFound ? [lab.name] : []))
            #expect(try lab.surroundings() == before)
            try next.uninstall()
        }
        #expect(try lab.surroundings() == before)
        #expect(Files.names(in: lab.options.runtimeDirectory) == [])
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=direct").error == "")
    }

    @Test(arguments: redirectSteps)
    func aPodDeletedAtAnyStepOfItsRulesLeavesNothing_P22(
        at place: (level: CaptureLevel, step: RedirectStep)
    ) throws {
        let pod = "\(lab.id)-\(place.step.rawValue)"
        try shell("ip netns add \(pod)")
        try shell("ip -n \(pod) link set lo up")
        try shell("ip -n \(pod) addr add 10.78.0.2/32 dev lo")
        let capture = try RedirectCapture(options: lab.options, level: place.level) { reached in
            if reached == place.step { _ = try? shell("ip netns del \(pod)") }
        }
        let namespace = Descriptor(adopting: open("/run/netns/\(pod)", O_RDONLY | O_CLOEXEC))
        _ = try capture.attach(
            lab.name, namespace: namespace, addresses: [#require(IPAddress("10.78.0.2"))], scope: CaptureScope())
        #expect(Files.inode("/run/netns/\(pod)") == nil, "\(place.step) came")
        try capture.detach(lab.name)
        #expect(capture.workloads.isEmpty && capture.adoptable.isEmpty)
        try capture.uninstall()
        #expect(Files.names(in: lab.options.runtimeDirectory) == [])
    }
}
