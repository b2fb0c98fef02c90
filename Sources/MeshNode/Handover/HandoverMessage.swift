internal import MeshKernel
internal import MeshModel
internal import MeshProxy

/// What two node proxies of one node say to each other while the newer takes over (decision 6). Lines of `key value`;
/// keys a side does not know are left out, so either may be the newer one.
///
///     new ── takeover 1 ──▶ old          old stops writing kernel state, frees its lock and its ports
///     new ◀─ listeners … ── old          descriptors of one workload and purpose, once for each
///     new ◀─ released ───── old          new takes the lock, swaps programs, accepts beside old
///     new ── serving ─────▶ old          every workload is served by new
///     new ◀─ draining ───── old          old accepts no more, finishes what it has, and ends: the conversation with it
///
/// `refused` takes the place of `released`, and `abandoned` that of `serving`. The conversation lasts as long as the
/// process that has to end.
enum HandoverMessage: Equatable {
    /// - level: the capture level asked for; nil: any.
    case takeover(version: String, level: String?)
    case refused(String)
    /// - namespace: the inode of the workload's network namespace.
    case listeners(workload: ObjectName, namespace: UInt64, purpose: String)
    case released(level: String)
    case serving
    case abandoned
    case draining

    static let protocolNumber = 1

    var text: String {
        switch self {
        case .takeover(let version, let level):
            "takeover \(Self.protocolNumber)\nversion \(version)" + (level.map { "\nlevel \($0)" } ?? "")
        case .refused(let why): "refused\nwhy \(why.prefix(3000))"
        case .listeners(let workload, let namespace, let purpose):
            "listeners\nworkload \(workload)\nnetns \(namespace)\npurpose \(purpose)"
        case .released(let level): "released\nlevel \(level)"
        case .serving: "serving"
        case .abandoned: "abandoned"
        case .draining: "draining"
        }
    }

    /// - Returns: nil for what this version does not understand.
    init?(_ text: String) {
        var fields: [String: String] = [:]
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        for line in lines {
            let pieces = line.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            fields[pieces[0]] = pieces.count > 1 ? pieces[1] : ""
        }
        switch lines.first?.split(separator: " ").first {
        case "takeover"?:
            guard fields["takeover"] == "\(Self.protocolNumber)", let version = fields["version"] else { return nil }
            self = .takeover(version: version, level: fields["level"])
        case "refused"?: self = .refused(fields["why"] ?? "")
        case "listeners"?:
            guard let workload = fields["workload"].flatMap(ObjectName.init),
                let namespace = fields["netns"].flatMap(UInt64.init), let purpose = fields["purpose"]
            else { return nil }
            self = .listeners(workload: workload, namespace: namespace, purpose: purpose)
        case "released"?:
            guard let level = fields["level"] else { return nil }
            self = .released(level: level)
        case "serving"?: self = .serving
        case "abandoned"?: self = .abandoned
        case "draining"?: self = .draining
        default: return nil
        }
    }
}

/// The listeners of one workload that a running daemon handed over. They are the same sockets, so nothing that waits in
/// their queues is lost, whichever of the two daemons accepts it.
struct InheritedListeners {
    let workload: ObjectName
    var sockets: [ListenerPurpose: [Int32]] = [:]

    /// Without one of each purpose there is nothing to steer to.
    var isComplete: Bool { ListenerPurpose.ofEveryWorkload.allSatisfy { sockets[$0]?.isEmpty == false } }

    /// What capture steers to; nil when it is not complete.
    var capture: CaptureListeners? {
        guard let outbound = sockets[.outbound]?.first, let inbound = sockets[.inbound]?.first,
            let tunnel = sockets[.tunnel]?.first
        else { return nil }
        return CaptureListeners(outbound: outbound, inbound: inbound, tunnel: tunnel)
    }
}
