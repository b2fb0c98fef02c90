import MeshWire
import Testing

/// A client and a server session with a wire between them.
final class Link {
    let client: Peer
    let server: Peer
    let clientSession: HTTP2Session
    let serverSession: HTTP2Session
    let memory = HTTP2Memory()
    /// On their way: client to server, server to client.
    var upward: [UInt8] = []
    var downward: [UInt8] = []
    var now: UInt64 = 1
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)

    init(client clientSettings: HTTP2Settings = HTTP2Settings(), server serverSettings: HTTP2Settings = HTTP2Settings())
    {
        client = Peer(isClient: true)
        server = Peer(isClient: false)
        clientSession = HTTP2Session(role: .client, settings: clientSettings, events: client, memory: memory)
        serverSession = HTTP2Session(role: .server, settings: serverSettings, events: server, memory: memory)
        client.session = clientSession
        server.session = serverSession
    }

    deinit { buffer.deallocate() }

    /// Appends what `session` produces to its wire; the number of bytes.
    @discardableResult
    func produce(_ session: HTTP2Session, room: Int = 65536) -> Int {
        let count = session.produce(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<room]))
        if session.role == .client { upward += buffer[..<count] } else { downward += buffer[..<count] }
        return count
    }

    /// Delivers up to `limit` bytes to `session`.
    @discardableResult
    func deliver(to session: HTTP2Session, atMost limit: Int = .max) -> HTTP2Failure? {
        let isServer = session.role == .server
        let count = min(limit, isServer ? upward.count : downward.count)
        let bytes = Array(isServer ? upward[..<count] : downward[..<count])
        if isServer { upward.removeFirst(count) } else { downward.removeFirst(count) }
        return bytes.withUnsafeBytes { session.receive($0, now: now) }
    }

    /// Exchanges everything until both sides are still.
    func settle() {
        var moved = true
        while moved {
            moved = false
            while produce(clientSession) > 0 { moved = true }
            while produce(serverSession) > 0 { moved = true }
            if !upward.isEmpty { deliver(to: serverSession) }
            if !downward.isEmpty { deliver(to: clientSession) }
        }
    }

    /// Opens a CONNECT stream that the server answers with 200.
    func open() throws -> Int32 {
        let id = try clientSession.request(connectFields)
        settle()
        serverSession.respond(stream: id, headers: okFields, endStream: false)
        settle()
        return id
    }
}

let connectFields = [
    HeaderField(name: ":method", value: "CONNECT"), HeaderField(name: ":authority", value: "10.0.0.1:80"),
]
let okFields = [HeaderField(name: ":status", value: "200")]

/// Takes everything that `session` produces.
func drain(_ session: HTTP2Session) -> [UInt8] {
    var all: [UInt8] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16640, alignment: 16)
    defer { buffer.deallocate() }
    while true {
        let count = session.produce(into: buffer)
        if count == 0 { return all }
        all += buffer[..<count]
    }
}
