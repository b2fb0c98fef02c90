internal import MeshModel
internal import MeshRuntime

/// A connection to a backend's endpoint, used by one downstream connection only.
final class UpstreamLeg {
    struct Backend: Hashable {
        var service: ObjectName
        var port: UInt16
    }

    let side: StreamSide
    let backend: Backend
    /// Of the configuration its endpoint was chosen by. A leg of an older one is not used again, since the endpoint may
    /// be gone or forbidden by now.
    let generation: UInt64
    var parser: HTTPHeadParser
    var isReused = false
    /// Something of the response to the current request arrived.
    var hasAnswered = false

    init(_ side: StreamSide, backend: Backend, generation: UInt64, limits: HTTPCodecLimits) {
        self.side = side
        self.backend = backend
        self.generation = generation
        parser = HTTPHeadParser(.response, limits: limits)
    }
}

/// One request and its response.
final class HTTPExchange {
    /// Where the response is.
    enum Response {
        /// No stream to the backend yet.
        case awaitingUpstream
        case awaitingHead
        case body(BodyDecoder)
        /// After a 101.
        case tunnel(BodyDecoder)
        /// Ours: it waits in the downstream output.
        case local
    }

    var record: HTTPRequestRecord
    var response = Response.awaitingUpstream
    var rewriting = RequestRewriting()
    var requestBody: BodyDecoder
    /// The whole request was handed to the upstream stream.
    var isRequestSent = false
    /// Of a tunnel: the whole of the other direction was handed to the client's stream.
    var isResponseSent = false
    /// The server does not take more of the request; its response may still come.
    var isRequestAbandoned = false
    /// Bytes of the head that are still kept in the downstream input, to be written to a (second) stream.
    var headBytes = 0
    var backend: UpstreamLeg.Backend?
    var leg: UpstreamLeg?
    var isDialing = false
    /// May be sent twice: idempotent and without body (RFC 9110 §9.2.2).
    var isRepeatable = false
    var isHEAD = false
    /// The client speaks HTTP/1.1.
    var clientIsCurrent = true
    var expectsContinue = false
    var wantsWebSocket = false
    /// The downstream connection serves another request after this one.
    var keepsDownstream = true
    var keepsUpstream = true
    var interimResponses = 0

    init(_ record: HTTPRequestRecord, body: BodyDecoder) {
        self.record = record
        requestBody = body
    }

    /// Whether the status line of the final response is on its way.
    var isResponseBegun: Bool {
        switch response {
        case .awaitingUpstream, .awaitingHead: false
        case .body, .tunnel, .local: true
        }
    }
}
