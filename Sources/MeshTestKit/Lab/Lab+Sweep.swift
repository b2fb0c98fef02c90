import Foundation
import Synchronization

/// The name of a lab and where its parts lie: `cv<owner's pid>-<random>`.
enum LabToken {
    /// Only root can make it, so nobody can plant folders for a sweep to remove.
    static let base = "/run/culvert-lab"
    /// Where ip-netns(8) mounts namespaces.
    static let namespaces = "/var/run/netns"

    static func make() -> String {
        let random = String(UInt32.random(in: 0x1000_0000 ... .max), radix: 16)
        return "cv\(getpid())-\(random)"
    }

    /// The token at the beginning of a name, and the pid in it; nil for a name that is none of ours.
    static func parse(_ name: String) -> (token: String, pid: Int32)? {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 2, parts[0].hasPrefix("cv"), let pid = Int32(parts[0].dropFirst(2)), pid > 0 else {
            return nil
        }
        guard parts[1].utf8.count == 8, UInt32(parts[1], radix: 16) != nil else { return nil }
        return ("\(parts[0])-\(parts[1])", pid)
    }
}

/// Who made a lab. A pid alone could be another process by now, so the time it started is kept with it.
struct LabOwner: Equatable {
    let pid: Int32
    let started: String
    let lifetime: Lab.Lifetime

    static func current(lifetime: Lab.Lifetime) -> LabOwner {
        LabOwner(pid: getpid(), started: startTime(of: getpid()) ?? "", lifetime: lifetime)
    }

    /// proc(5), field 22 of stat: ticks since boot. The second field may hold spaces and brackets.
    static func startTime(of pid: Int32) -> String? {
        guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
            let bracket = text.lastIndex(of: ")")
        else { return nil }
        let fields = text[bracket...].split(separator: " ")
        return fields.count > 20 ? String(fields[20]) : nil
    }

    var isAlive: Bool { Self.startTime(of: pid).map { started.isEmpty || $0 == started } ?? false }

    func write(to folder: String) throws {
        try "\(pid) \(started) \(lifetime.rawValue)\n".write(
            toFile: "\(folder)/owner", atomically: true, encoding: .utf8)
    }

    static func read(from folder: String) -> LabOwner? {
        guard let text = try? String(contentsOfFile: "\(folder)/owner", encoding: .utf8) else { return nil }
        let fields = text.split(whereSeparator: \.isWhitespace).map(String.init)
        guard fields.count == 3, let pid = Int32(fields[0]), let lifetime = Lab.Lifetime(rawValue: fields[2]) else {
            return nil
        }
        return LabOwner(pid: pid, started: fields[1], lifetime: lifetime)
    }
}

/// What there is of a lab on the machine, found by its token alone.
struct Remains {
    let token: String

    var folder: String { "\(LabToken.base)/\(token)" }

    /// - Parameter reap: asked between kills, to collect children of our own.
    func remove(reaping reap: () -> Void = {}) {
        if let root = try? Cgroup.mountPoint() { _ = Cgroup(path: "\(root)/\(token)").remove(reaping: reap) }
        umount2("\(folder)/bpffs", Int32(MNT_DETACH))
        for name in Self.names(in: LabToken.namespaces) where LabToken.parse(name)?.token == token {
            Self.removeNamespace("\(LabToken.namespaces)/\(name)")
        }
        // Not before the bpffs is off: what is pinned there goes with the mount, never by unlinking through it.
        if !Self.isMountPoint("\(folder)/bpffs") { try? FileManager.default.removeItem(atPath: folder) }
        rmdir(LabToken.base)
    }

    static func removeNamespace(_ path: String) {
        umount2(path, Int32(MNT_DETACH))
        unlink(path)
    }

    static func names(in folder: String) -> [String] {
        (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    }

    private static func isMountPoint(_ path: String) -> Bool {
        var here = stat()
        var above = stat()
        guard stat(path, &here) == 0, stat("\(path)/..", &above) == 0 else { return false }
        return here.st_dev != above.st_dev
    }
}

extension Lab {
    /// Removes what is left of labs whose owner is gone; kept labs only when asked to.
    /// - Returns: the tokens of the labs removed.
    @discardableResult
    public static func sweep(includingKept: Bool = false) -> [String] {
        guard geteuid() == 0 else { return [] }
        var found: [String: Int32] = [:]
        let groups = (try? Cgroup.mountPoint()).map(Remains.names) ?? []
        for name in Remains.names(in: LabToken.base) + Remains.names(in: LabToken.namespaces) + groups {
            if let (token, pid) = LabToken.parse(name) { found[token] = pid }
        }
        var removed: [String] = []
        for (token, pid) in found.sorted(by: { $0.key < $1.key }) {
            let remains = Remains(token: token)
            let owner =
                LabOwner.read(from: remains.folder) ?? LabOwner(pid: pid, started: "", lifetime: .owner)
            if owner.isAlive || owner.lifetime == .kept && !includingKept { continue }
            remains.remove()
            removed.append(token)
        }
        return removed
    }

    /// From now on SIGINT and SIGTERM tear down every lab of this process before it ends (128 + signal).
    public static func tearDownOnSignals() {
        LiveLabs.shared.watchSignals()
    }
}

/// The labs of this process, for its sudden end.
final class LiveLabs: Sendable {
    static let shared = LiveLabs()

    private struct State {
        var labs: [Lab] = []
        var isWatching = false
    }

    private let state = Mutex(State())

    func add(_ lab: Lab) {
        state.withLock { $0.labs.append(lab) }
    }

    func forget(_ lab: Lab) {
        state.withLock { state in state.labs.removeAll { $0 === lab } }
    }

    func watchSignals() {
        let isFirst = state.withLock { state in
            defer { state.isWatching = true }
            return !state.isWatching
        }
        guard isFirst else { return }
        // A thread of its own: the end must not wait for a pool that a stuck test occupies.
        let queue = DispatchQueue(label: "lab-signals")
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            source.setEventHandler { [self] in
                for lab in state.withLock({ $0.labs }) { lab.tearDownNow() }
                _ = source
                exit(128 + number)
            }
            source.resume()
        }
    }
}
