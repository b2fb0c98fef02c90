import Glibc
import MeshModel
import Testing

@testable import MeshKernel

/// What holds of the capture programs alone, on this machine's kernel: see `Lab` for the topology. `LevelTests` has what
/// they share with other levels. The names P1…P27 are those of the design's test list.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class CaptureTests {
    let lab: Lab
    let capture: KernelCapture
    var proxy: Proxy

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
        try? capture.uninstall()
        lab.tearDown()
    }

    @Test func aRuleWithoutPreferredSourceWouldShowTheWrongSource_P2() throws {
        // Not our code: shows why the route names a source.
        try shell("ip -n \(lab.pod) rule add fwmark 7 lookup 77")
        try shell("ip -n \(lab.pod) route add local default dev lo table 77")
        try lab.serve(in: lab.pod, port: 8080)
        let seen = try lab.connect(in: lab.pod, "192.0.2.1", 8080, "mark=7")
        #expect(seen.local != "10.77.0.2")
    }

    @Test func theKernelSpreadsConnectionsOverAReusePortGroup() throws {
        proxy.close()
        proxy = try Proxy(in: lab.namespace(lab.pod), cores: 2)
        try lab.attach(capture, proxy)
        for port in UInt16(2000)..<2024 { #expect(try lab.connect(in: lab.pod, "192.0.2.1", port).error == "") }
        let taken = proxy.outbound.map { listener in
            var count = 0
            while let accepted = proxy.accept([listener]) {
                close(accepted.socket)
                count += 1
            }
            return count
        }
        #expect(taken.reduce(0, +) == 24)
        #expect(taken.allSatisfy { $0 > 0 }, "\(taken)")
    }

    @Test func acceptedSocketsBehaveAsIfNeverSteered_P3() throws {
        try lab.attach(capture, proxy)
        _ = try lab.connect(in: lab.out, "10.77.0.2", 8080, "send=12345")
        let accepted = try #require(proxy.accept(proxy.inbound))
        var waiting: Int32 = 0
        var ready = pollfd(fd: accepted.socket, events: Int16(POLLIN), revents: 0)
        #expect(poll(&ready, 1, 5000) == 1)
        #expect(ioctl(accepted.socket, UInt(FIONREAD), &waiting) == 0 && waiting == 5)
        close(accepted.socket)
    }
}
