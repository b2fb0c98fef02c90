/// The answer to a CONNECT. Exactly 200 is success, as in ztunnel; other answers of the 2xx class are not.
public struct ConnectResponse: Hashable, Sendable {
    public var status: Int
    /// Describes the destination's workload, on success.
    public var baggage: Baggage?

    public init(status: Int, baggage: Baggage? = nil) {
        self.status = status
        self.baggage = baggage
    }

    /// nil when there is no status of three digits.
    public init?(_ fields: HeaderBlock) {
        guard let status = Self.status(of: fields) else { return nil }
        self.status = status
        let baggage = Baggage(fields.values("baggage"))
        self.baggage = baggage.isEmpty ? nil : baggage
    }

    public var isSuccess: Bool { status == 200 }

    /// The `:status` of a response; nil when it is absent or not three digits (RFC 9110 §15).
    public static func status(of fields: HeaderBlock) -> Int? {
        let status = fields.withValue(":status") { digits -> Int? in
            guard digits.count == 3, digits.allSatisfy({ $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }) else {
                return nil
            }
            return digits.reduce(0) { $0 * 10 + Int($1 - UInt8(ascii: "0")) }
        }
        return status ?? nil
    }

    public var headerFields: [HeaderField] {
        var fields = [HeaderField(name: ":status", value: String(status))]
        if let text = baggage?.text, !text.isEmpty { fields.append(HeaderField(name: "baggage", value: text)) }
        return fields
    }
}
