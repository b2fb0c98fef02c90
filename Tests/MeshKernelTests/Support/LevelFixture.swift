import Foundation
import Glibc
import MeshModel
import MeshRuntime

@testable import MeshKernel

/// Capture at one level in a lab of its own. What every level promises is tested through this.
final class LevelFixture {
    let level: CaptureLevel
    let lab: Lab
    /// Where this process was: at L1 it moves to where the hooks see it.
    private let home: String
    private(set) var capture: NodeCapture!
    private(set) var proxy: Proxy!

    static func with(_ level: CaptureLevel, _ body: (LevelFixture) throws -> Void) throws {
        let fixture = try LevelFixture(level)
        defer { fixture.tearDown() }
        try fixture.begin()
        try body(fixture)
    }

    /// What an application sees of a refusal by the connect hooks: `error`, or EPERM on a kernel that lets hooks say no
    /// alone (before 5.18).
    /// - Parameter levels: those at which the hooks refuse; elsewhere it is a reset.
    func refusal(_ error: String, atLevels levels: Set<CaptureLevel> = [.l0, .l1]) -> String {
        let saysNoAlone = PreflightContext(lab.options).version.map { $0 < KernelVersion(5, 18) } ?? false
        return saysNoAlone && levels.contains(level) ? "EPERM" : error
    }

    private init(_ level: CaptureLevel) throws {
        self.level = level
        lab = try Lab()
        let own = try String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8).split(separator: "\n")
        let mount = lab.cgroup.dropLast(lab.id.count + 1)
        home = String(mount) + String(own.first { $0.hasPrefix("0::") }?.dropFirst(3) ?? "")
    }

    /// A daemon starts: capture and listeners.
    func begin() throws {
        capture = try NodeCapture(options: lab.options, level: level)
        proxy = try Proxy(in: lab.namespace(lab.pod), isTranslated: capture.translatesDestinations)
    }

    /// As kill -9 leaves it: every descriptor gone, nothing tidied.
    func kill() {
        capture = nil
        proxy?.close()
        proxy = nil
    }

    private func tearDown() {
        try? capture?.uninstall()
        kill()
        _ = Files.write("\(getpid())", to: "\(home)/cgroup.procs")
        lab.tearDown()
    }

    @discardableResult
    func attach(
        _ name: ObjectName? = nil, addresses: [IPAddress]? = nil, scope: CaptureScope = CaptureScope()
    ) throws -> Bool {
        try lab.withDescriptor(lab.pod) { descriptor in
            try capture.attach(
                name ?? lab.name, namespace: descriptor, addresses: addresses ?? lab.addresses,
                scope: scope, listeners: proxy.listeners
            ).adopted
        }
    }

    func surroundings() throws -> String { try lab.surroundings() }
}
