internal import MeshModel
internal import MeshTLS

extension TLSFailure {
    /// The one word for the log and the metric; the description says more.
    var proxyReason: MeshModel.Reason {
        switch reason {
        case .peerIdentity, .trustDomain, .notAnSVID: .peerIdentity
        default: .tlsFailure
        }
    }
}
