internal import Glibc
internal import Logging
internal import MeshKernel
internal import MeshRuntime
internal import ServiceLifecycle
internal import Synchronization

/// The running daemon's side of a hand-over: waits for a newer one that asks, from when the daemon has the node for sure
/// and for as long as it lives.
///
/// Until the newer one says that it serves, this daemon goes on accepting and can take everything back: the end of the
/// conversation, whatever its reason, means that the newer one gave up.
final class HandoverServer: Sendable {
    /// What the daemon does at each turn of the conversation.
    struct Owner: Sendable {
        /// Stops writing kernel state, gives up ports and lock, and names what is accepted on.
        let release: @Sendable () async throws -> [(HandoverMessage, [Int32])]
        /// The other process has all of it and says nothing any more: what is the matter, in words.
        let reportSilence: @Sendable (String) -> Void
        /// Has all of it again.
        let takeBack: @Sendable () async -> Void
        /// The other process is gone after `takeBack`.
        let isAlone: @Sendable () -> Void
        /// Begins the shutdown.
        let leave: @Sendable () async -> Void
    }

    /// nil while nobody can ask.
    private let listener = Mutex<PacketSocket?>(nil)
    private let path: String
    private static let patience: UInt32 = 5000
    /// How long the newer one may take from the question on until it serves.
    private let limit: Duration

    private let level: CaptureLevel
    private let owner: Owner
    private let logger: Logger
    /// Kept to the end of the process: its end is what the other daemon waits for.
    private let heir = Mutex<(conversation: PacketSocket, process: Int32)?>(nil)

    /// - Parameters:
    ///   - level: what capture works at; the two daemons must know each other's sockets the same way.
    ///   - limit: how long a newer one may say nothing before that is reported: more than it gives itself.
    init(path: String, level: CaptureLevel, limit: Duration, owner: Owner, logger: Logger) {
        self.path = path
        self.level = level
        self.limit = limit
        self.owner = owner
        self.logger = logger
    }

    /// The process that took over.
    var successor: Int32? { heir.withLock { $0?.process } }

    /// Listens until cancelled. Call it with the node's lock held.
    func run() async throws {
        listen()
        await withTaskCancellationHandler { [self] in
            while !Task.isCancelled, let current = listener.withLock({ $0 }) {
                do {
                    guard let conversation = try await onThread({ try current.accept() }) else { break }
                    await converse(conversation)
                } catch {
                    logger.error("hand-over: \(error)")
                    try? await Task.sleep(for: .seconds(1))
                }
            }
        } onCancel: {
            listener.withLock { $0?.shut() }
        }
        // Without a listener there is nothing to wait for but the end.
        try await gracefulShutdown()
    }

    private func listen() {
        do {
            let new = try PacketSocket.listen(path)
            listener.withLock { $0 = new }
        } catch {
            logger.error("no hand-over is possible before a restart: \(error)")
        }
    }

    /// Nobody can ask from here on.
    func removeSocket() {
        let isListening = listener.withLock { listener in
            defer { listener = nil }
            return listener != nil
        }
        // Another daemon of the node may have a socket there otherwise.
        if isListening { unlink(path) }
    }

    private func converse(_ conversation: PacketSocket) async {
        do {
            let peer = try conversation.peer
            guard peer.user == 0 || peer.user == geteuid() else {
                return try conversation.send(HandoverMessage.refused("only root may ask for a hand-over").text)
            }
            guard successor == nil else {
                return try conversation.send(HandoverMessage.refused("it was handed over already").text)
            }
            // Who says nothing must not keep others from asking.
            try conversation.setPatience(milliseconds: Self.patience)
            guard case .takeover(let version, let wanted)? = try await receive(conversation) else {
                return try conversation.send(
                    HandoverMessage.refused("version \(NodeOptions.version) does not know this request").text)
            }
            // Hooks and maps of L2 belong to one process: another would not know where what it accepts was going.
            guard level != .l2 else {
                return try conversation.send(
                    HandoverMessage.refused(
                        "it captures at level L2, whose hooks end with their process and cannot be handed over: stop it "
                            + "and start the new one; connections are refused in between"
                    ).text)
            }
            guard wanted == nil || wanted == level.rawValue else {
                return try conversation.send(
                    HandoverMessage.refused(
                        "it captures at level \(level), and a hand-over keeps the level: ask for \(level), or stop it, "
                            + "uninstall and start anew"
                    ).text)
            }
            try conversation.setPatience(milliseconds: UInt32(clamping: limit.components.seconds * 1000))
            logger.info("process \(peer.process), version \(version), takes over")
            await handOver(to: conversation, process: peer.process)
        } catch {
            logger.warning("a request to hand over failed: \(error)")
        }
    }

    private func handOver(to conversation: PacketSocket, process: Int32) async {
        var why = "process \(process) ended before it served"
        do {
            let parts = try await owner.release()
            defer { for descriptor in parts.flatMap(\.1) { Socket.close(descriptor) } }
            removeSocket()
            for (message, descriptors) in parts { try conversation.send(message.text, descriptors: descriptors) }
            try conversation.send(HandoverMessage.released(level: level.rawValue).text)
            let word = try await lastWord(of: process, conversation)
            if word == .abandoned { why = "process \(process) gave up" }
            if word == .serving {
                // Before anything else: from here on there is no way back.
                heir.withLock { $0 = (conversation, process) }
                logger.info("handed over to process \(process)")
                try? conversation.send(HandoverMessage.draining.text)
                return await owner.leave()
            }
        } catch {
            why = "\(error)"
            refuse(conversation, why)
        }
        // A daemon that is stopped meanwhile leaves; what it gave up stays with whoever has it.
        guard !Task.isCancelled else { return }
        logger.error("the hand-over failed, this process goes on: \(why)")
        await owner.takeBack()
        guard !Task.isCancelled else { return }
        listen()
        // It may finish what it has accepted, and needs its exemption from capture for that.
        try? conversation.setPatience(milliseconds: nil)
        while (try? await receive(conversation)) != nil {}
        owner.isAlone()
    }

    /// What a newer daemon that has the node says in the end; nil when it ends without a word. One that hangs is waited
    /// for all the same, since lock and kernel state are its own, but not in silence.
    private func lastWord(of process: Int32, _ conversation: PacketSocket) async throws -> HandoverMessage? {
        do {
            return try await receive(conversation)
        } catch let error as SystemError where error.code == EAGAIN {
            owner.reportSilence(
                "process \(process), which was to take over, has said nothing for \(limit); it holds the node's lock, and "
                    + "what policy takes back is not enforced on direct connections until it serves or ends: "
                    + "kill -KILL \(process), and this process takes the node back")
            try conversation.setPatience(milliseconds: nil)
            return try await receive(conversation)
        }
    }

    /// Tells one that waits for the listeners that it gets none. One that does not even read finds the conversation ended.
    private func refuse(_ conversation: PacketSocket, _ why: String) {
        do {
            try conversation.setPatience(milliseconds: 1)
            try conversation.send(HandoverMessage.refused(why).text)
        } catch {
            conversation.shut()
        }
    }

    private func receive(_ conversation: PacketSocket) async throws -> HandoverMessage? {
        try await withTaskCancellationHandler {
            try await onThread { try conversation.receive() }.flatMap { HandoverMessage($0.text) }
        } onCancel: {
            conversation.shut()
        }
    }
}
