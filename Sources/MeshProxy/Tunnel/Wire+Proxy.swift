internal import MeshModel
internal import MeshWire

extension HTTP2Settings {
    /// Our side of a session, from the limits.
    init(_ limits: Limits) {
        self.init()
    }
}

extension ConnectRequestError {
    /// The status of the answer (ztunnel-facts §4.4).
    var status: Int { 400 }

    var reason: Reason { .badAuthority }
}
