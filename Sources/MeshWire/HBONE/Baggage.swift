public import MeshModel

/// What a peer says of its workload in the `baggage` header (W3C Baggage; the keys are OpenTelemetry's, as Istio uses
/// them). For telemetry only: it proves nothing. An empty text means unknown and is not sent.
public struct Baggage: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable, CaseIterable {
        case deployment, cronjob, pod, job
    }

    public var cluster = ""
    public var namespace = ""
    public var kind = Kind.pod
    public var workload = ""
    public var service = ""
    public var version = ""
    public var region = ""
    public var zone = ""

    public init() {}

    /// Describes a workload; service and version are its canonical ones (Istio's labels, then the usual ones).
    public init(_ workload: Workload, cluster: String = "") {
        func label(_ keys: String...) -> String? { keys.lazy.compactMap { workload.labels[$0] }.first }
        self.cluster = cluster
        namespace = workload.name.namespace
        self.workload = workload.name.name
        service =
            label("service.istio.io/canonical-name", "app.kubernetes.io/name", "app") ?? workload.name.name
        version =
            label("service.istio.io/canonical-revision", "app.kubernetes.io/version", "version") ?? "latest"
        region = workload.locality.region
        zone = workload.locality.zone
    }

    public var isEmpty: Bool { self == Baggage() }

    /// The header's value; empty when nothing is known. A value that the header cannot carry (W3C Baggage §3.3.1:
    /// printable ASCII without space, `"`, `,`, `;`, `\`) is left out, because peers do not decode percent signs.
    public var text: String {
        var text = ""
        func add(_ key: String, _ value: String) {
            guard !value.isEmpty, value.utf8.allSatisfy(Self.isAllowed) else { return }
            if !text.isEmpty { text += "," }
            text += key
            text += "="
            text += value
        }
        add("k8s.cluster.name", cluster)
        add("k8s.namespace.name", namespace)
        add("k8s.\(kind.rawValue).name", workload)
        add("service.name", service)
        add("service.version", version)
        add("cloud.region", region)
        add("cloud.availability_zone", zone)
        return text
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        // `=` splits where peers read it; so it is left out too.
        case UInt8(ascii: "\""), UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: "\\"), UInt8(ascii: "="): false
        default: byte > 0x20 && byte < 0x7f
        }
    }

    /// Reads the values of all `baggage` headers. Unknown keys and malformed members are skipped; a value that is not
    /// ASCII makes everything unknown. Properties after `;` are ignored.
    public init(_ values: [String]) {
        for value in values where !value.utf8.allSatisfy({ $0 < 0x80 }) { return }
        for value in values {
            for member in value.utf8.split(separator: UInt8(ascii: ",")) {
                let parts = member.split(separator: UInt8(ascii: "="), omittingEmptySubsequences: false)
                guard parts.count == 2 else { continue }
                let text = parts[1].prefix { $0 != UInt8(ascii: ";") }
                set(String(Self.trimmed(parts[0])) ?? "", String(Self.trimmed(text)) ?? "")
            }
        }
    }

    private static func trimmed(_ text: Substring.UTF8View) -> Substring.UTF8View {
        func isSpace(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }
        var rest = text.drop(while: isSpace)
        while let last = rest.last, isSpace(last) { rest = rest.dropLast() }
        return rest
    }

    private mutating func set(_ key: String, _ value: String) {
        guard !value.isEmpty else { return }
        switch key {
        case "k8s.cluster.name": cluster = value
        case "k8s.namespace.name": namespace = value
        case "service.name": service = value
        case "service.version": version = value
        case "cloud.region": region = value
        case "cloud.availability_zone": zone = value
        default:
            for kind in Kind.allCases where key == "k8s.\(kind.rawValue).name" {
                self.kind = kind
                workload = value
            }
        }
    }
}
