internal import Glibc
internal import MeshKernel
internal import MeshModel
internal import MeshProxy
internal import MeshRuntime
internal import Synchronization

/// The newer daemon's side of a hand-over: what it got from the running one, and the word that it serves.
final class Inheritance: Sendable {
    /// The process that hands over.
    let process: Int32
    /// What it captures at.
    let level: CaptureLevel
    private let conversation: PacketSocket
    /// By the inode of the network namespace. What nobody takes is closed in the end.
    private let listeners: Mutex<[UInt64: InheritedListeners]>
    /// How long the running daemon may take to give up its place, and to say that it drains.
    private static let patience: UInt32 = 60_000

    private init(
        process: Int32, level: CaptureLevel, conversation: PacketSocket, listeners: [UInt64: InheritedListeners]
    ) {
        self.process = process
        self.level = level
        self.conversation = conversation
        self.listeners = Mutex(listeners)
    }

    /// Asks the daemon that listens on `path` to hand over, and waits until it has given up its place.
    /// - Parameter level: what capture is to work at; nil: as it does.
    /// - Returns: nil when no daemon listens there.
    static func request(_ path: String, level wanted: CaptureLevel?) async throws -> Inheritance? {
        try await onThread {
            guard let conversation = try PacketSocket.connect(path) else { return nil }
            try conversation.setPatience(milliseconds: patience)
            let (user, process) = try conversation.peer
            guard user == 0 || user == geteuid() else {
                throw NodeError(
                    "process \(process) of user \(user) listens there, which is no node proxy: find out what it is, end "
                        + "it, and remove the socket")
            }
            try conversation.send(
                HandoverMessage.takeover(version: NodeOptions.version, level: wanted?.rawValue).text)
            var listeners: [UInt64: InheritedListeners] = [:]
            do {
                while true {
                    guard let received = try conversation.receive() else {
                        throw NodeError("process \(process) ended during the hand-over; start again")
                    }
                    switch HandoverMessage(received.text) {
                    case .listeners(let workload, let namespace, let purpose)?:
                        if let purpose = ListenerPurpose(rawValue: purpose) {
                            listeners[namespace, default: InheritedListeners(workload: workload)]
                                .sockets[purpose, default: []] += received.descriptors
                        } else {
                            for descriptor in received.descriptors { Socket.close(descriptor) }
                        }
                    case .released(let name)?:
                        guard let level = CaptureLevel(rawValue: name) else {
                            throw NodeError("process \(process) captures at level \(name), unknown to this version")
                        }
                        return Inheritance(
                            process: process, level: level, conversation: conversation, listeners: listeners)
                    case .refused(let why)?:
                        throw NodeError("process \(process) does not hand over: \(why)")
                    default:
                        for descriptor in received.descriptors { Socket.close(descriptor) }
                    }
                }
            } catch {
                for descriptor in listeners.values.flatMap(\.sockets.values).joined() { Socket.close(descriptor) }
                throw error
            }
        }
    }

    /// What steering needs, for the maps of a new layout.
    var captureListeners: [UInt64: CaptureListeners] {
        listeners.withLock { $0.compactMapValues(\.capture) }
    }

    /// The workloads that the running daemon serves and this one not yet.
    var waiting: Set<ObjectName> { listeners.withLock { Set($0.values.map(\.workload)) } }

    /// Whether the workload of a namespace can go on with the listeners it has.
    func hasListeners(inNamespace inode: UInt64) -> Bool { listeners.withLock { $0[inode]?.isComplete ?? false } }

    /// Copies of the listeners of one namespace that every workload has; nil when there are none. The originals stay
    /// here until `served`.
    func listeners(inNamespace inode: UInt64) throws -> InheritedListeners? {
        guard let found = listeners.withLock({ $0[inode] }), found.isComplete else { return nil }
        return try copies(of: found, ListenerPurpose.ofEveryWorkload)
    }

    /// Likewise those of DNS.
    func dns(inNamespace inode: UInt64) throws -> PodDNS.Sockets? {
        guard let found = listeners.withLock({ $0[inode] }), found.sockets[.dnsDatagrams]?.isEmpty == false,
            found.sockets[.dnsStreams]?.isEmpty == false
        else { return nil }
        let copies = try copies(of: found, [.dnsDatagrams, .dnsStreams])
        guard let datagrams = copies.sockets[.dnsDatagrams]?.first, let streams = copies.sockets[.dnsStreams]?.first
        else { return nil }
        return PodDNS.Sockets(datagrams: datagrams, streams: streams)
    }

    private func copies(
        of found: InheritedListeners, _ purposes: [ListenerPurpose]
    ) throws -> InheritedListeners {
        var result = InheritedListeners(workload: found.workload)
        var copies: [Int32] = []
        do {
            for purpose in purposes {
                result.sockets[purpose] = try found.sockets[purpose]?.map { socket in
                    let copy = try Socket.duplicate(socket)
                    copies.append(copy)
                    return copy
                }
            }
        } catch {
            for copy in copies { Socket.close(copy) }
            throw error
        }
        return result
    }

    /// The namespace's workload is served here.
    func served(inNamespace inode: UInt64) {
        close(listeners.withLock { $0.removeValue(forKey: inode) })
    }

    /// What is left is nobody's any more.
    func dropAll() {
        let dropped = listeners.withLock { listeners in
            defer { listeners.removeAll() }
            return listeners
        }
        for workload in dropped.values { close(workload) }
    }

    /// Tells the running daemon that this one serves, and waits for its word that it drains, or for its end.
    func settle() async throws {
        try await onThread { [conversation] in
            // Where it is gone already there is nobody to tell.
            guard (try? conversation.send(HandoverMessage.serving.text)) != nil else { return }
            _ = try conversation.receive()
        }
    }

    /// Waits until the daemon that drains has ended.
    func outlive() async throws {
        try await withTaskCancellationHandler {
            try await onThread { [conversation] in
                try conversation.setPatience(milliseconds: nil)
                while try conversation.receive() != nil {}
            }
        } onCancel: {
            conversation.shut()
        }
    }

    /// Gives up: the running daemon takes everything back. What was accepted here may go on until the process ends.
    func abandon() {
        try? conversation.send(HandoverMessage.abandoned.text)
    }

    private func close(_ workload: InheritedListeners?) {
        for descriptor in workload.map({ Array($0.sockets.values.joined()) }) ?? [] { Socket.close(descriptor) }
    }
}
