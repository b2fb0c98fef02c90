internal import MeshWire

/// Takes the HTTP/2 codec's callbacks to the session and its streams. Nothing here calls an owner.
final class SessionEvents: HTTP2Events {
    unowned var session: TunnelSession!

    override func headers(stream id: Int32, _ fields: HeaderBlock, endStream: Bool) {
        session.received(fields, on: id, endStream: endStream)
    }

    override func data(stream id: Int32, _ bytes: UnsafeRawBufferPointer) {
        guard let stream = session.streams[id] else {
            // Nobody reads it: give the window back so that the session's other streams go on.
            session.http2.consumed(stream: id, bytes: bytes.count)
            return
        }
        stream.arrived(bytes)
    }

    override func malformedRequest(stream id: Int32) { session.receivedMalformed() }

    override func endOfStream(stream id: Int32) { session.streams[id]?.peerFinished() }

    override func closed(stream id: Int32, errorCode: UInt32) {
        session.streamClosed(id, errorCode)
        session.streams[id]?.peerClosed(errorCode)
    }

    override func goAway(lastStream: Int32, errorCode: UInt32) { session.peerGoesAway() }

    override func pingAcknowledged() { session.pingAcknowledged() }

    override func outgoingData(stream id: Int32, into buffer: UnsafeMutableRawBufferPointer) -> OutgoingData {
        session.streams[id]?.produce(into: buffer) ?? .pause
    }
}
