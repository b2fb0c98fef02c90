import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// What operators keep out of capture: see `Lab` for the topology.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class CompletenessScopeTests {
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

    private func block(_ text: String) -> CIDR { CIDR(text)! }
    private func address(_ text: String) -> SocketAddress { SocketAddress(text)! }

    /// Starts a connection to each address and tells by the mark of its socket whether it is captured.
    private func captured(_ destinations: [SocketAddress]) throws -> [Bool] {
        let program = """
            import socket, sys
            for word in sys.argv[1:]:
                host, port = word.split()
                s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
                s.setblocking(False)
                s.connect_ex((host, int(port)))
                print(s.getsockopt(socket.SOL_SOCKET, 36))
            """
        let output = try lab.python(in: lab.pod, program, destinations.map { "\($0.ip) \($0.port)" })
        while let accepted = proxy.accept(proxy.outbound) { close(accepted.socket) }
        let marks = output.split(separator: "\n").compactMap { UInt32($0) }
        try #require(marks.count == destinations.count)
        return marks.map { $0 == CaptureConstants.capturedMark }
    }

    private func isEmpty(_ capture: KernelCapture) -> Bool {
        capture.objects.scopes.ports.keys.isEmpty && capture.objects.scopes.ranges.keys.isEmpty
    }

    @Test func excludedBlocksAndPortsLeaveAsTheyAre() throws {
        let capture = try #require(capture)
        try lab.serve(in: lab.out, port: 8080)
        try lab.attach(
            capture, proxy,
            scope: CaptureScope(
                excludedOutbound: [block("10.77.0.1/32"), block("fd00:77::/64")], excludedOutboundPorts: [9090]))
        for host in ["10.77.0.1", "fd00:77::1", "::ffff:10.77.0.1"] {
            let seen = try lab.connect(in: lab.pod, host, 8080, "text=clear")
            #expect(seen.error == "" && seen.answer.hasSuffix("|clear"), "\(host)")
        }
        #expect(try captured([address("192.0.2.1:9090"), address("192.0.2.1:9091")]) == [false, true])
        let statistics = try #require(capture.statistics(of: lab.name))
        #expect(statistics[.exemptExcluded] == 4 && statistics[.outboundMarked] == 1)
        // The proxy is not needed for what it has no part in.
        proxy.close()
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080, "text=clear").answer.hasSuffix("|clear"))
        #expect(try lab.connect(in: lab.pod, "192.0.2.1", 80).error == "ECONNREFUSED")
    }

    @Test func aSocketThatWasCapturedBeforeIsLetGo() throws {
        try lab.serve(in: lab.out, port: 8080)
        try lab.attach(try #require(capture), proxy, scope: CaptureScope(excludedOutbound: [block("10.77.0.1/32")]))
        let program = """
            import ctypes, socket
            s = socket.socket()
            s.connect(('192.0.2.1', 80))
            # AF_UNSPEC ends the connection and keeps the socket.
            assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
            s.connect(('10.77.0.1', 8080))
            s.sendall(b'again')
            s.shutdown(socket.SHUT_WR)
            print(s.recv(100).decode(), s.getsockopt(socket.SOL_SOCKET, 36))
            """
        #expect(try lab.python(in: lab.pod, program, []).contains("|again 0"))
    }

    private struct Draw {
        var chance = SystemRandomNumberGenerator()

        mutating func blocks() -> [CIDR] {
            (0..<Int.random(in: 0...4, using: &chance)).map { _ in
                let isV4 = Bool.random(using: &chance)
                let length = isV4 ? [0, 8, 15, 16, 24, 31, 32] : [0, 16, 80, 88, 90, 95, 112, 127, 128]
                return CIDR(address(isV4: isV4), prefixLength: length.randomElement(using: &chance)!)!
            }
        }

        mutating func address(isV4: Bool) -> IPAddress {
            let near = [0, 1, 2, 3, 0x100, 0x200, 0x1_0000].randomElement(using: &chance)!
            if isV4 { return IPAddress(v4: UInt32(0xc612_0000 + near)) }
            // Beside the place of IPv4 among the 16 bytes, too.
            let low = [0, 0xff00_0000_0000, 0xfffe_0000_0000].randomElement(using: &chance)! + UInt64(near) + 4
            return IPAddress(high: [0, 0x2001_0db8_0000_0000].randomElement(using: &chance)!, low: low)
        }

        mutating func ports() -> Set<UInt16> { Set([UInt16(80), 81, 82].filter { _ in Int.random(in: 0...3) == 0 }) }

        mutating func scope() -> CaptureScope {
            CaptureScope(
                includedOutbound: Bool.random(using: &chance) ? nil : blocks(), excludedOutbound: blocks(),
                includedOutboundPorts: ports(), excludedOutboundPorts: ports())
        }
    }

    @Test func theKernelDecidesAsTheModelDoes() throws {
        let capture = try #require(capture)
        try lab.attach(capture, proxy)
        var draw = Draw()
        var seen: Set<Bool> = []
        for round in 0..<25 {
            let scope = draw.scope()
            #expect(try capture.setScope(scope, of: lab.name) == 0)
            let destinations = (0..<60).map { number in
                SocketAddress(
                    ip: draw.address(isV4: number % 2 == 0), port: [80, 81, 82, 83].randomElement(using: &draw.chance)!)
            }
            let found = try captured(destinations)
            for (destination, isCaptured) in zip(destinations, found) {
                #expect(isCaptured == scope.takesOutbound(to: destination), "\(round): \(destination) of \(scope)")
            }
            seen.formUnion(found)
        }
        #expect(seen == [true, false])
        #expect(try capture.setScope(CaptureScope(), of: lab.name) == 0)
        #expect(isEmpty(capture))
    }

    @Test func inboundPortsThatAreExcludedReachTheApplication() throws {
        let capture = try #require(capture)
        for port in [8080, 9090] as [UInt16] { try lab.serve(in: lab.pod, port: port) }
        func direct(_ port: UInt16, _ host: String = "10.77.0.2") throws -> Bool {
            let seen = try lab.connect(in: lab.out, host, port, "send=x")
            #expect(seen.error == "")
            guard let accepted = proxy.accept(proxy.inbound) else { return true }
            close(accepted.socket)
            return false
        }
        try lab.attach(capture, proxy, scope: CaptureScope(excludedInboundPorts: [9090]))
        #expect(try direct(9090) && direct(9090, "fd00:77::2") && !direct(8080))
        #expect(try #require(capture.statistics(of: lab.name))[.excludedPassed] == 2)

        try capture.setScope(CaptureScope(includedInboundPorts: [9090]), of: lab.name)
        #expect(try direct(8080) && !direct(9090))

        try capture.setScope(CaptureScope(includedInboundPorts: []), of: lab.name)
        #expect(try direct(8080) && direct(9090))
        // The tunnel goes on, and the proxy's other ports are no way around it.
        #expect(try !direct(15001) && !direct(15006))
        #expect(try lab.connect(in: lab.out, "10.77.0.2", 15008, "send=x").error == "")
        let tunnel = try #require(proxy.accept(proxy.tunnel))
        close(tunnel.socket)

        try capture.setScope(CaptureScope(), of: lab.name)
        #expect(try !direct(8080) && !direct(9090) && isEmpty(capture))
    }

    @Test func openConnectionsStayAsTheyAre() throws {
        let capture = try #require(capture)
        try lab.serve(in: lab.out, port: 8080)
        try lab.attach(capture, proxy, scope: CaptureScope(excludedOutbound: [block("10.77.0.0/24")]))
        let clear = try lab.hold(in: lab.pod, "10.77.0.1", 8080)
        let through = try lab.hold(in: lab.pod, "192.0.2.1", 80)
        let carried = try #require(proxy.accept(proxy.outbound))
        try capture.setScope(CaptureScope(excludedOutbound: [block("192.0.2.0/24")]), of: lab.name)
        #expect(
            try captured([address("10.77.0.1:8080"), address("192.0.2.1:80")]) == [true, false])
        #expect(send(carried.socket, "x", 1, 0) == 1)
        close(carried.socket)
        #expect(["closed", "ECONNRESET"].contains(through.rest()))
        lab.stopServers()
        #expect(["closed", "ECONNRESET"].contains(clear.rest()))
    }

    @Test func anotherDaemonFindsAndReplacesTheScope() throws {
        let excluded = CaptureScope(excludedOutbound: [block("192.0.2.0/24")], excludedInboundPorts: [9090])
        try lab.attach(try #require(capture), proxy, scope: excluded)
        capture = nil
        capture = try KernelCapture(options: lab.options)
        let capture = try #require(capture)
        #expect(try captured([address("192.0.2.1:80"), address("198.51.100.1:80")]) == [false, true], "without a gap")
        try lab.attach(capture, proxy, scope: CaptureScope(excludedOutbound: [block("198.51.100.0/24")]))
        #expect(try captured([address("192.0.2.1:80"), address("198.51.100.1:80")]) == [true, false])
        #expect(capture.objects.scopes.ports.keys.count == 1 && capture.objects.scopes.ranges.keys.count == 1)
        // Whoever gets the slot next starts without it.
        try capture.detach(lab.name)
        #expect(isEmpty(capture))
    }

    @Test func withoutRoomInTheMapsTrafficIsCaptured() throws {
        let capture = try #require(capture)
        try lab.attach(capture, proxy)
        var number: UInt32 = 0
        while capture.objects.scopes.ports.update(1, for: .init(1 << 20 + number, 1, 0)) == 0 {
            number += 1
        }
        #expect(number == 65536)
        let scope = CaptureScope(includedOutbound: [], excludedInboundPorts: [9090])
        #expect(try capture.setScope(scope, of: lab.name) > 0)
        #expect(try captured([address("192.0.2.1:80")]) == [true])

        // Room for one: the list of what is included is not whole, and so it does not count.
        capture.objects.scopes.ports.remove(.init(1 << 20, 1, 0))
        let list = CaptureScope(includedOutbound: [], includedOutboundPorts: [80])
        #expect(try capture.setScope(list, of: lab.name) == 1)
        #expect(try captured([address("192.0.2.1:80"), address("192.0.2.1:81")]) == [true, true])
        capture.objects.scopes.ports.remove(.init(1 << 20 + 1, 1, 0))
        #expect(try capture.setScope(list, of: lab.name) == 0)
        #expect(try captured([address("192.0.2.1:80"), address("192.0.2.1:81")]) == [true, false])
    }
}

/// The same scope at every level, told by who answers.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct CompletenessLevelTests {
    /// `captured`: the proxy got it; else the answer of the application.
    private func outcome(_ fixture: LevelFixture, _ host: String, _ port: UInt16) throws -> String {
        let (lab, proxy) = (fixture.lab, try #require(fixture.proxy))
        let isInbound = host == "10.77.0.2" || host == "fd00:77::2"
        let seen = try lab.connect(in: isInbound ? lab.out : lab.pod, host, port)
        guard let accepted = proxy.accept(isInbound ? proxy.inbound : proxy.outbound) else {
            return seen.error.isEmpty ? "clear" : seen.error
        }
        close(accepted.socket)
        return "captured"
    }

    @Test(arguments: LevelTests.levels)
    func scopesHoldAtEveryLevelAndChangeLive(level: CaptureLevel) throws {
        try LevelFixture.with(level) { fixture in
            let lab = fixture.lab
            for port in [8080, 9090] as [UInt16] {
                try lab.serve(in: lab.out, port: port)
                try lab.serve(in: lab.pod, port: port)
            }
            let block = try #require(CIDR("10.77.0.0/24")), part = try #require(CIDR("10.77.0.0/30"))
            let every = try #require(CIDR("::/0"))
            let outside = ("10.77.0.1", "fd00:77::1"), inside = ("10.77.0.2", "fd00:77::2")
            func check(
                _ scope: CaptureScope, _ expected: [(String, UInt16, String)],
                sourceLocation: SourceLocation = #_sourceLocation
            ) throws {
                #expect(try fixture.capture.setScope(scope, of: lab.name) == 0)
                for (host, port, answer) in expected {
                    #expect(
                        try outcome(fixture, host, port) == answer, "\(host) \(port)", sourceLocation: sourceLocation)
                }
            }
            try fixture.attach(scope: CaptureScope(excludedOutbound: [block, part]))
            #expect(try outcome(fixture, outside.0, 8080) == "clear")
            #expect(try outcome(fixture, outside.1, 8080) == "captured")
            try check(
                CaptureScope(excludedOutbound: [every], excludedOutboundPorts: [9090], excludedInboundPorts: [9090]),
                [
                    (outside.0, 8080, "captured"), (outside.0, 9090, "clear"), (outside.1, 8080, "clear"),
                    (inside.0, 8080, "captured"), (inside.0, 9090, "clear"), (inside.1, 9090, "clear"),
                ])
            try check(
                CaptureScope(
                    includedOutbound: [part, block], includedOutboundPorts: [9090], includedInboundPorts: [9090]),
                [
                    (outside.0, 8080, "captured"), (outside.1, 8080, "clear"), (outside.1, 9090, "captured"),
                    (inside.0, 8080, "clear"), (inside.0, 9090, "captured"), (inside.0, 15001, "captured"),
                ])
            try check(
                CaptureScope(includedOutbound: [every], includedInboundPorts: []),
                [(outside.0, 8080, "clear"), (outside.1, 8080, "captured"), (inside.1, 8080, "clear")])
            try check(
                CaptureScope(includedOutbound: []), [(outside.0, 8080, "clear"), (outside.1, 9090, "clear")])
            try check(
                CaptureScope(),
                [(outside.0, 8080, "captured"), (outside.1, 9090, "captured"), (inside.0, 9090, "captured")])
        }
    }
}
