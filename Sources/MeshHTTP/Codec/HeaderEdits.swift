internal import MeshModel

/// The outcome of request header modifiers on one head: which of its fields stay and which are new.
/// Modifiers come in order; each sets, then adds, then removes (Gateway API `HTTPHeaderFilter`).
struct HeaderEdits {
    private(set) var added: [HTTPRoute.HeaderModifier.Field] = []
    /// By index of the head's fields; empty: all stay.
    private var isRemoved: [Bool] = []
    /// The value `Host` was set to.
    private(set) var host: String?

    init(_ modifiers: [HTTPRoute.HeaderModifier], head: HTTPHead, bytes: Span<UInt8>) {
        if modifiers.isEmpty { return }
        isRemoved = [Bool](repeating: false, count: head.fields.count)
        for modifier in modifiers {
            for field in modifier.set { set(field, head, bytes) }
            for field in modifier.add where Self.isAllowed(field) { added.append(field) }
            for name in modifier.remove where !Self.isProtected(name) { remove(name, head, bytes) }
        }
    }

    func keeps(_ index: Int) -> Bool { isRemoved.isEmpty || !isRemoved[index] }

    private mutating func set(_ field: HTTPRoute.HeaderModifier.Field, _ head: HTTPHead, _ bytes: Span<UInt8>) {
        if field.name == "host" {
            let value = Array(field.value.utf8)
            if HTTPAuthority.isValid(HTTPSlice(0, value.count), value.span) { host = field.value }
            return
        }
        guard Self.isAllowed(field) else { return }
        remove(field.name, head, bytes)
        added.append(field)
    }

    private mutating func remove(_ name: String, _ head: HTTPHead, _ bytes: Span<UInt8>) {
        added.removeAll { $0.name == name }
        for index in head.fields.indices where !isRemoved[index] {
            isRemoved[index] = head.fields[index].name.lowercasedText(in: bytes) == name
        }
    }

    /// Framing, the hop and the caller's identity are ours to say, whatever a route says; and a value that could end
    /// its line never reaches the wire.
    private static func isAllowed(_ field: HTTPRoute.HeaderModifier.Field) -> Bool {
        !isProtected(field.name) && field.name != "host"
            && !field.name.isEmpty && field.name.utf8.allSatisfy(HTTPCharacters.isToken)
            && field.value.utf8.allSatisfy(HTTPCharacters.isFieldContent)
    }

    private static func isProtected(_ name: String) -> Bool {
        switch name {
        case "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "upgrade",
            "http2-settings", "x-forwarded-client-cert", "expect":
            true
        default: false
        }
    }
}
