public import MeshModel
public import MeshRuntime

/// What a listener inside a workload's namespace is for.
public enum ListenerPurpose: String, CaseIterable, Sendable {
    /// Connections that the workload makes.
    case outbound
    /// Connections to the workload in clear text.
    case inbound
    /// HBONE sessions from peers.
    case tunnel
    /// Questions by UDP.
    case dnsDatagrams = "dns-datagrams"
    /// Connections to the workload's own DNS server.
    case dnsStreams = "dns-streams"

    /// What every workload is served on.
    public static let ofEveryWorkload: [ListenerPurpose] = [.outbound, .inbound, .tunnel]
}

/// A second descriptor of a listener that a core accepts on.
public struct ListenerCopy: Sendable {
    public let workload: ObjectName
    /// The inode of its network namespace.
    public let namespace: UInt64
    public let purpose: ListenerPurpose
    /// The holder closes it.
    public let descriptor: Int32
}

extension ProxyCore {
    /// Copies of this core's listeners, of all workloads.
    func copyListeners() -> Result<[ListenerCopy], SystemError> {
        var copies: [ListenerCopy] = []
        do throws(SystemError) {
            for (name, local) in workloads {
                guard let namespace = local.namespace?.inode else { continue }
                func add(_ purpose: ListenerPurpose, _ descriptor: Int32?) {
                    guard let descriptor else { return }
                    copies.append(
                        ListenerCopy(workload: name, namespace: namespace, purpose: purpose, descriptor: descriptor))
                }
                for (purpose, acceptor) in local.acceptors { add(purpose, try acceptor.duplicate()) }
                add(.dnsDatagrams, try local.dns.listener?.duplicate())
            }
            return .success(copies)
        } catch {
            for copy in copies { Socket.close(copy.descriptor) }
            return .failure(error)
        }
    }
}

extension DataPlane {
    /// Copies of every listener of every core, in the order of cores. The sockets are the same: whoever accepts first
    /// has the connection, and nothing in a queue is lost when one side closes.
    public func copyListeners() async throws(SystemError) -> [ListenerCopy] {
        var copies: [ListenerCopy] = []
        var failure: SystemError?
        for result in await collect({ $0.copyListeners() }) {
            switch result {
            case .success(let some): copies += some
            case .failure(let error): failure = error
            }
        }
        if let failure {
            for copy in copies { Socket.close(copy.descriptor) }
            throw failure
        }
        return copies
    }

    /// Leaves DNS questions to another process that reads from the same sockets, and waits until those that were taken
    /// are answered, or until `limit`.
    public func leaveDNS(within limit: Duration) async {
        post { $0.leaveDNS() }
        let deadline = ContinuousClock.now.advanced(by: limit)
        while await collect({ $0.openQuestions }).contains(where: { $0 > 0 }), ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(50))
        }
    }
}
