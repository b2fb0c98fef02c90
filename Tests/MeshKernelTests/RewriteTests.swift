import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// What is particular to level L2, where hooks rewrite destinations, and to hooks that tell the cookies of namespaces.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct RewriteTests {
    @Test func aClientThatIsGoneBeforeItIsAcceptedKeepsItsDestination() throws {
        try LevelFixture.with(.l2) { fixture in
            try fixture.attach()
            for port in [UInt16(80), 443] {
                #expect(try fixture.lab.connect(in: fixture.lab.pod, "192.0.2.1", port).error == "")
            }
            for port in [UInt16(80), 443] {
                let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound))
                #expect(accepted.destination == "192.0.2.1" && accepted.port == port)
                close(accepted.socket)
            }
        }
    }

    @Test func whatMeetsNoHookIsRefusedByTheRules() throws {
        try LevelFixture.with(.l2) { fixture in
            let lab = fixture.lab
            try lab.serve(in: lab.out, port: 8080)
            try fixture.attach()
            for host in ["10.77.0.1", "fd00:77::1"] {
                // This process is the proxy, which the hooks leave alone; without its mark the rules do not.
                #expect(throws: ShellFailure.self) { try Client(in: lab.namespace(lab.pod), to: host, 8080) }
                let client = try Client(in: lab.namespace(lab.pod), to: host, 8080, mark: CaptureConstants.proxyMark)
                defer { client.close() }
                client.say("direct")
                client.finish()
                #expect(client.answer().hasSuffix("|direct"))
            }
            let statistics = try #require(fixture.capture.statistics(of: lab.name))
            #expect(statistics[.exemptProxy] == 4)
        }
    }

    @Test func updatingAWorkloadKeepsItsCapturedConnections() throws {
        try LevelFixture.with(.l2) { fixture in
            let lab = fixture.lab
            try fixture.attach()
            let client = try lab.hold(in: lab.pod, "192.0.2.1", 80)
            defer { client.stop() }
            let accepted = try #require(fixture.proxy.accept(fixture.proxy.outbound))
            defer { Glibc.close(accepted.socket) }
            try fixture.attach(addresses: [lab.v4])
            shutdown(accepted.socket, Int32(SHUT_WR))
            #expect(client.rest() == "closed")
        }
    }

    @Test(arguments: [CaptureLevel.l1, .l2])
    func hooksTellTheCookieThatTheKernelWouldTell(level: CaptureLevel) throws {
        let lab = try Lab()
        defer { lab.tearDown() }
        try lab.withDescriptor(lab.pod) { raw in
            let namespace = try Descriptor(duplicating: raw, what: "the pod", at: "the lab")
            let expected = try namespaceCookie(of: namespace, questions: nil, place: "the lab")
            // The answer does not hang on a device that is up.
            try shell("ip -n \(lab.pod) link set lo down")
            if level == .l1 {
                let capture = try KernelCapture(
                    options: lab.options, level: .l1, acceleration: .notTried, cookies: .hooks)
                #expect(capture.objects.questions != nil)
                #expect(try capture.cookie(of: namespace, place: "the lab") == expected)
                #expect(capture.objects.questions?.keys.isEmpty == true)
                try capture.uninstall()
            } else {
                let hooks = try ConnectRewrite(options: lab.options, cookies: .hooks)
                defer { hooks.leave() }
                #expect(try hooks.cookie(of: namespace, place: "the lab") == expected)
            }
        }
    }
}
