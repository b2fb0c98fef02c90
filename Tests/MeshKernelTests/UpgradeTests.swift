import Foundation
import Glibc
import MeshModel
import Synchronization
import Testing

@testable import MeshKernel

/// A newer daemon takes over from an older one: programs change hands by compare-and-swap, maps of another layout are
/// made anew.
@Suite(.serialized, .timeLimit(.minutes(2)))
final class UpgradeTests {
    let lab: Lab

    init() throws { lab = try Lab() }
    deinit { lab.tearDown() }

    // MARK: two daemons

    @Test func ofDaemonsThatReplaceAProgramAtOnceOneWinsAndTheOthersAreTold_P19() throws {
        let capture = try KernelCapture(options: lab.options)
        let pin = capture.pins.path("connect4")
        let link = try #require(BPFLink.open(pin))
        var present = capture.objects.connect4
        for round in 0..<10 {
            let rivals = try (0..<4).map { _ in try CaptureObjects.load(pins: nil).connect4 }
            let old = present
            let outcomes = Mutex<[Int: KernelError?]>([:])
            DispatchQueue.concurrentPerform(iterations: rivals.count) { number in
                var failure: KernelError?
                do throws(KernelError) {
                    try BPFLink.replace(old, by: rivals[number], of: link, pin: pin, what: "the hook connect4")
                } catch { failure = error }
                outcomes.withLock { $0[number] = .some(failure) }
            }
            let winners = outcomes.withLock { $0.filter { $0.value == nil }.keys.sorted() }
            #expect(winners.count == 1, "round \(round)")
            for case let failure? in outcomes.withLock({ $0.values }) {
                #expect(failure.kind == .attachRefused && "\(failure)".contains("somebody else replaced it"))
                #expect("\(failure)".contains(pin))
            }
            present = rivals[try #require(winners.first)]
        }
        try capture.uninstall()
    }

    @Test func aProgramThatSomebodyPutThereIsLeftAloneAndNamed_P19() throws {
        var capture: KernelCapture? = try KernelCapture(options: lab.options)
        let pin = try #require(capture).pins.path("connect4")
        capture = nil
        _ = try lab.python(in: lab.out, Foreign.replacing, [pin])
        for _ in 0..<2 {
            #expect {
                _ = try KernelCapture(options: self.lab.options)
            } throws: { error in
                (error as? KernelError)?.kind == .attachRefused && "\(error)".contains("intruder")
                    && "\(error)".contains(pin)
            }
        }
        unlink(pin)
        try KernelCapture(options: lab.options).uninstall()
    }

    @Test func daemonsWithDifferentRunDirectoriesCannotShareTheirPins_P19() throws {
        let first = try KernelCapture(options: lab.options)
        var elsewhere = lab.options
        elsewhere.runtimeDirectory += "/elsewhere"
        #expect {
            _ = try KernelCapture(options: elsewhere)
        } throws: { error in
            (error as? KernelError)?.kind == .alreadyRunning(pid: nil) && "\(error)".contains(first.pins.nodeDirectory)
        }
        try first.uninstall()
    }

    // MARK: under load

    /// Argument: how many. Connects again and again; the proxy ends every connection in order.
    private static let hasty = #"""
        import collections, errno, json, socket, sys
        print('ready', flush=True)
        seen = collections.Counter()
        for _ in range(int(sys.argv[1])):
            with socket.socket() as s:
                s.settimeout(20)
                try:
                    s.connect(('192.0.2.1', 80))
                    seen['ended' if s.recv(1) == b'' else 'data'] += 1
                except OSError as error:
                    seen[errno.errorcode.get(error.errno, repr(error))] += 1
        print(json.dumps(seen))
        """#

    @Test func programsAndListenersChangeUnderLoadWithoutAReset_P23() throws {
        let capture = try KernelCapture(options: lab.options)
        let proxies = try (0..<2).map { _ in try Proxy(in: lab.namespace(lab.pod)) }
        try lab.attach(capture, proxies[0])
        let (count, clients) = (3000, 2)
        let running = try (0..<clients).map { _ in
            try Background(lab.inside(lab.pod) + ["python3", "-c", Self.hasty, "\(count)"])
        }
        let isOver = Atomic(false)
        let listeners = proxies.flatMap(\.outbound)
        let accepted = DispatchQueue(label: "accepting")
        accepted.async {
            while !isOver.load(ordering: .relaxed) {
                var ready = listeners.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
                guard poll(&ready, nfds_t(ready.count), 100) > 0 else { continue }
                for listener in ready where listener.revents != 0 {
                    let socket = Glibc.accept(listener.fd, nil, nil)
                    guard socket >= 0 else { continue }
                    // As the proxy does when a connection ends in order.
                    var off = linger(l_onoff: 0, l_linger: 0)
                    setsockopt(socket, SOL_SOCKET, SO_LINGER, &off, socklen_t(MemoryLayout<linger>.size))
                    close(socket)
                }
            }
        }
        var flips = 0
        while running.contains(where: { !$0.hasEnded }) {
            flips += 1
            // Another program in the workload's namespace, and other listeners in its slot.
            try lab.attach(capture, proxies[flips % 2])
        }
        for client in running { #expect(client.rest() == "{\"ended\": \(count)}") }
        isOver.store(true, ordering: .relaxed)
        accepted.sync {}
        #expect(flips > 20)
        try capture.uninstall()
    }

    // MARK: another version

    /// Makes of what a dead daemon left what the first version would have left: its directory, and only its pins.
    private func becomeFirstVersion(_ pins: Pins) throws -> String {
        let old = "\(pins.nodeDirectory)/v1"
        try #require(rename(pins.directory, old) == 0)
        let known = ["pods", "names", "proxy_cg", "lst", "stats", "connect4", "connect6"]
        for name in Files.names(in: old) where !known.contains(name) && !name.hasPrefix("lookup_") {
            unlink("\(old)/\(name)")
        }
        return old
    }

    /// Captures, and leaves it as a killed daemon does.
    private func killed() throws -> Pins {
        let capture = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(capture, proxy)
        return capture.pins
    }

    private func expectRefused(_ when: String, location: SourceLocation = #_sourceLocation) throws {
        for host in ["10.77.0.1", "fd00:77::1"] {
            let seen = try lab.connect(in: lab.pod, host, 8080, "text=secret")
            #expect(seen.error == "ECONNREFUSED", "\(when)", sourceLocation: location)
        }
    }

    @Test func capturesOfAnotherVersionAreTakenOverWithoutAGap() throws {
        try lab.serve(in: lab.out, port: 8080)
        let before = try lab.surroundings()
        let old = try becomeFirstVersion(killed())
        try expectRefused("the old daemon is gone")

        let capture = try KernelCapture(options: lab.options)
        #expect(capture.adoptable == [lab.name])
        #expect(Files.inode(old) == nil)
        try expectRefused("the new one has no listeners yet")
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        #expect(try lab.attach(capture, proxy).adopted)
        for host in ["10.77.0.1", "fd00:77::1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080).error == "")
            let accepted = try #require(proxy.accept(proxy.outbound))
            #expect(accepted.destination == host)
            close(accepted.socket)
        }
        #expect(try lab.connect(in: lab.out, "10.77.0.2", 8080).error == "", "inbound is steered by the new program")
        #expect(capture.statistics(of: lab.name) != nil)
        try capture.uninstall()
        #expect(try lab.surroundings() == before, "what the old version remembered was taken over")
    }

    @Test func listenersThatARunningDaemonHandsOverAreSteeredToWithoutAGap() throws {
        let old = try KernelCapture(options: lab.options)
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        try lab.attach(old, proxy)
        _ = try becomeFirstVersion(old.pins)
        old.release()
        #expect(throws: KernelError.self) { try lab.attach(old, proxy) }
        let inode = try #require(Files.inode("/run/netns/\(lab.pod)"))
        let capture = try KernelCapture(options: lab.options, takingOver: [inode: proxy.listeners])
        #expect(capture.adoptable == [lab.name], "nothing is attached again yet")
        for host in ["10.77.0.1", "fd00:77::1"] {
            #expect(try lab.connect(in: lab.pod, host, 8080).error == "")
            let accepted = try #require(proxy.accept(proxy.outbound))
            #expect(accepted.destination == host)
            close(accepted.socket)
        }
        try lab.attach(capture, proxy)
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "")
        try capture.uninstall()
    }

    @Test func aMigrationCutShortIsFinishedByTheNextDaemon() throws {
        try lab.serve(in: lab.out, port: 8080)
        let before = try lab.surroundings()
        let pins = try killed()
        let old = try becomeFirstVersion(pins)
        try pins.make()
        // One daemon dies when links and entries are moved and no program is replaced yet.
        try Migration(pins: pins, objects: CaptureObjects.load(pins: pins)).prepare()
        #expect(Files.inode(old) != nil && Files.inode(pins.path("connect4")) != nil)
        try expectRefused("between two daemons")
        let capture = try KernelCapture(options: lab.options)
        #expect(Files.inode(old) == nil && capture.adoptable == [lab.name])
        try expectRefused("after the second one")
        let proxy = try Proxy(in: lab.namespace(lab.pod))
        #expect(try lab.attach(capture, proxy).adopted)
        #expect(try lab.connect(in: lab.pod, "10.77.0.1", 8080).error == "")
        try capture.uninstall()
        #expect(try lab.surroundings() == before)
    }

    @Test func anotherVersionCanBeUninstalled() throws {
        let before = try lab.surroundings()
        _ = try becomeFirstVersion(killed())
        #expect(try lab.surroundings() != before)
        try KernelCapture.uninstall(options: lab.options)
        #expect(try lab.surroundings() == before)
        #expect(Files.inode("\(lab.bpffs)/culvert") == nil)
    }
}
