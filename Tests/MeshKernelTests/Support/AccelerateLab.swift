import Foundation
import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// Both namespaces of a lab as workloads of one node that ask for acceleration: `caller` lives in `pod`, `called` in
/// `out`.
final class AccelerateLab {
    let lab: Lab
    var capture: KernelCapture?
    let callerProxy: Proxy
    let calledProxy: Proxy
    let caller = ObjectName(namespace: "default", name: "caller")
    let called = ObjectName(namespace: "default", name: "called")

    /// - Parameter look: at the lab before anything is captured.
    init(acceleration: AccelerationFitness? = nil, before look: (Lab) throws -> Void = { _ in }) throws {
        lab = try Lab()
        do {
            try look(lab)
            capture = try KernelCapture(options: lab.options, acceleration: acceleration)
            callerProxy = try Proxy(in: lab.namespace(lab.pod))
            calledProxy = try Proxy(in: lab.namespace(lab.out))
            try attach()
            try allow()
        } catch {
            lab.tearDown()
            throw error
        }
    }

    deinit {
        callerProxy.close()
        calledProxy.close()
        try? capture?.uninstall()
        lab.tearDown()
    }

    func attach() throws {
        let capture = try #require(capture)
        try lab.attach(capture, callerProxy, name: caller)
        try lab.attach(
            capture, calledProxy, name: called,
            addresses: [#require(IPAddress("10.77.0.1")), #require(IPAddress("fd00:77::1"))], in: lab.out)
    }

    func allow(accelerated: Bool = true) throws {
        let capture = try #require(capture)
        try capture.setAcceleration(accelerated)
        let rule = DirectRule(isDirect: true, isAccelerated: accelerated)
        #expect(try capture.setDirectRules([DirectPair(source: caller, destination: called): rule]) == 0)
    }

    private func arguments(_ text: String) -> [String] {
        lab.inside(lab.pod) + ["python3", "-c", BothEnds.prelude + text, lab.pod, lab.out]
    }

    /// Runs a program of both ends to its end.
    /// - Returns: the words it printed.
    func run(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> [String] {
        let outcome = try MeshKernelTests.run(arguments(text))
        #expect(outcome.status == 0, "\(outcome.errors)", sourceLocation: sourceLocation)
        return outcome.output.split(whereSeparator: \.isWhitespace).map(String.init)
    }

    /// The same for a program that calls `wait()` once, with `body` in the middle.
    func run(
        _ text: String, sourceLocation: SourceLocation = #_sourceLocation, meanwhile body: () throws -> Void
    ) throws -> [String] {
        let program = try Background(arguments(text))
        do { try body() } catch {
            program.stop()
            throw error
        }
        kill(program.identifier, SIGUSR1)
        return program.rest().split(whereSeparator: \.isWhitespace).map(String.init)
    }

    /// A connection that hands bytes over, then `body`, which uninstalls capture, then as many bytes again and its end.
    func runAcrossUninstall(sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void) throws {
        let program = """
            c, s = pair()
            c.sendall(b'a' * 1000)
            wait()
            c.sendall(b'b' * 1000)
            c.close()
            print(len(read(s)))
            """
        let words = try run(program, sourceLocation: sourceLocation, meanwhile: body)
        #expect(words == ["2000"], sourceLocation: sourceLocation)
    }

    /// The records of closed connections, until there are `count` or no more come.
    func records(_ count: Int) throws -> [DirectRecord] {
        let ring = try ClosedFlows(of: #require(capture))
        var found: [DirectRecord] = []
        for _ in 0..<50 where found.count < count { found += ring.next(within: 100) }
        return found
    }

    func count(_ event: CaptureEvent) throws -> UInt64 { try #require(capture).statistics()[event] }

    /// How the last message went; `tcpOnly`: and every later one.
    enum Path { case none, short, tcp, tcpOnly }

    /// How the only open connection travels, and how many bytes went the short way, by sender.
    func lanes() throws -> (client: Path, server: Path, bytes: [UInt64]) {
        let shortcuts = try #require(capture).objects.shortcuts
        let keys = shortcuts.keys
        try #require(keys.count == 1)
        let value = try #require(shortcuts.value(for: keys[0]))
        // Two of `culvert_lane`: bytes, receiver, path, whether it is by TCP only, arrived.
        return try withUnsafeBytes(of: value) { lanes in
            func path(_ offset: Int) throws -> Path {
                if lanes.load(fromByteOffset: offset + 20, as: UInt32.self) != 0 { return .tcpOnly }
                let last = Int(lanes.load(fromByteOffset: offset + 16, as: UInt32.self))
                try #require(last < 3)
                return [.none, .short, .tcp][last]
            }
            return (try path(0), try path(32), [0, 32].map { lanes.load(fromByteOffset: $0, as: UInt64.self) })
        }
    }
}
