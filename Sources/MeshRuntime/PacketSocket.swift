import CMeshSystem

/// A unix socket of whole messages that may carry open files to another process. Calls block the thread, so it is
/// for threads that do nothing else; `shut` from another thread ends them.
public final class PacketSocket: Sendable {
    /// So many descriptors go with one message.
    public static let maximumDescriptors = Int(MESH_PACKET_DESCRIPTORS)
    private static let maximumMessage = 4096

    private let descriptor: Int32

    /// A message: some text, and descriptors that belong to whoever received it.
    public struct Message: Sendable {
        public let text: String
        public let descriptors: [Int32]
    }

    private init(adopting descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit { mesh_close(descriptor) }

    /// Listens on `path` for processes of this user and root alone. A socket file left by a dead process is replaced:
    /// the caller must know that no other process listens there.
    public static func listen(_ path: String) throws(SystemError) -> PacketSocket {
        let removed = mesh_unlink(path)
        if removed < 0 && removed != -Errno.noEntry {
            throw SystemError(code: -removed, operation: "remove \(path)")
        }
        return PacketSocket(adopting: try SystemError.check(mesh_packet_listen(path), "listen on \(path)"))
    }

    /// Connects to whoever listens on `path`; nil when nobody does.
    public static func connect(_ path: String) throws(SystemError) -> PacketSocket? {
        let result = mesh_packet_connect(path)
        if result == -Errno.noEntry || result == -Errno.connectionRefused { return nil }
        return PacketSocket(adopting: try SystemError.check(result, "connect to \(path)"))
    }

    /// The next conversation with this listener; nil when it was shut.
    public func accept() throws(SystemError) -> PacketSocket? {
        let result = mesh_packet_accept(descriptor)
        if result == -Errno.invalid { return nil }
        return PacketSocket(adopting: try SystemError.check(result, "accept"))
    }

    /// The user and the process that connected.
    public var peer: (user: UInt32, process: Int32) {
        get throws(SystemError) {
            var user: UInt32 = 0
            var process: Int32 = 0
            try SystemError.check(mesh_packet_peer(descriptor, &user, &process), "getsockopt SO_PEERCRED")
            return (user, process)
        }
    }

    /// How long a call may block; nil: for ever.
    public func setPatience(milliseconds: UInt32?) throws(SystemError) {
        try SystemError.check(mesh_packet_set_patience(descriptor, milliseconds ?? 0), "setsockopt SO_RCVTIMEO")
    }

    /// Sends a message; the descriptors stay the caller's.
    public func send(_ text: String, descriptors: [Int32] = []) throws(SystemError) {
        let bytes = Array(text.utf8)
        precondition(bytes.count <= Self.maximumMessage && descriptors.count <= Self.maximumDescriptors)
        try SystemError.check(
            mesh_packet_send(descriptor, bytes, bytes.count, descriptors, descriptors.count), "send a message")
    }

    /// Waits for the next message; nil when the other end is gone.
    public func receive() throws(SystemError) -> Message? {
        var bytes = [UInt8](repeating: 0, count: Self.maximumMessage)
        var descriptors = [Int32](repeating: -1, count: Self.maximumDescriptors)
        var count = descriptors.count
        let length = mesh_packet_receive(descriptor, &bytes, bytes.count, &descriptors, &count)
        if length == 0 || length == -Int(Errno.connectionReset) { return nil }
        try SystemError.check(Int32(clamping: length), "receive a message")
        return Message(
            text: String(decoding: bytes[..<length], as: UTF8.self), descriptors: Array(descriptors[..<count]))
    }

    /// Ends the conversation, also for a thread that waits in it. The other end sees it as well.
    public func shut() { mesh_packet_shut(descriptor) }
}
