/// Why a request is no HBONE CONNECT.
public enum ConnectRequestError: Error, Hashable, Sendable, CustomStringConvertible {
    case notConnect(method: String)
    case noAuthority
    case badAuthority(AuthorityError, text: String)
    /// `:scheme`, `:path` or `:protocol` is there, which a plain CONNECT must not have (RFC 9113 §8.5).
    case unexpectedPseudoHeader
    case headersTooLarge

    /// The status that answers it (ztunnel answers 400 too; RFC 6585 §5).
    public var status: Int { self == .headersTooLarge ? 431 : 400 }

    public var description: String {
        switch self {
        case .notConnect(let method): "method \(method.isEmpty ? "absent" : method) is not CONNECT"
        case .noAuthority: "CONNECT without an authority"
        case .badAuthority(let error, let text): "\(error): \(text)"
        case .unexpectedPseudoHeader: "CONNECT with :scheme, :path or :protocol"
        case .headersTooLarge: "header list too large"
        }
    }
}

/// The request that opens an HBONE stream: CONNECT to an authority, with what the sender knows of the connection.
public struct ConnectRequest: Hashable, Sendable {
    public var authority: Authority
    public var baggage: Baggage?
    public var forwarded: Forwarded?
    public var traceparent: TraceParent?
    /// `x-forwarded-network`: the sender's network, on the inner request of a call through a gateway.
    public var network: String?

    public init(
        authority: Authority, baggage: Baggage? = nil, forwarded: Forwarded? = nil, traceparent: TraceParent? = nil,
        network: String? = nil
    ) {
        self.authority = authority
        self.baggage = baggage
        self.forwarded = forwarded
        self.traceparent = traceparent
        self.network = network
    }

    /// Reads a request. Only what decides where it goes is strict: a malformed `baggage`, `forwarded` or `traceparent`
    /// counts as absent.
    public init(_ fields: HeaderBlock) throws(ConnectRequestError) {
        if fields.exceedsLimit { throw .headersTooLarge }
        let method = fields.value(":method") ?? ""
        guard method == "CONNECT" else { throw .notConnect(method: method) }
        if fields.contains(":scheme") || fields.contains(":path") || fields.contains(":protocol") {
            throw .unexpectedPseudoHeader
        }
        guard let text = fields.value(":authority") else { throw .noAuthority }
        do {
            authority = try Authority(text)
        } catch .empty {
            throw .noAuthority
        } catch {
            throw .badAuthority(error, text: text)
        }
        let baggage = Baggage(fields.values("baggage"))
        self.baggage = baggage.isEmpty ? nil : baggage
        forwarded = fields.value("forwarded").flatMap(Forwarded.init)
        traceparent = fields.value("traceparent").flatMap(TraceParent.init)
        network = fields.value("x-forwarded-network")
    }

    public var headerFields: [HeaderField] {
        var fields = [
            HeaderField(name: ":method", value: "CONNECT"),
            HeaderField(name: ":authority", value: authority.description),
        ]
        if let text = baggage?.text, !text.isEmpty { fields.append(HeaderField(name: "baggage", value: text)) }
        if let text = forwarded?.text, !text.isEmpty {
            // Holds the client's port, so it is new each time.
            fields.append(HeaderField(name: "forwarded", value: text, isVolatile: true))
        }
        if let traceparent {
            fields.append(HeaderField(name: "traceparent", value: traceparent.description, isVolatile: true))
        }
        if let network, !network.isEmpty { fields.append(HeaderField(name: "x-forwarded-network", value: network)) }
        return fields
    }
}
