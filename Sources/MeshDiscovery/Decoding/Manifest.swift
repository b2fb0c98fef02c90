import MeshModel

/// The kinds we know, with where they come from.
enum Kind: String, CaseIterable {
    case mesh = "Mesh"
    case workload = "Workload"
    case namespace = "Namespace"
    case service = "Service"
    case gateway = "Gateway"
    case httpRoute = "HTTPRoute"
    case authorizationPolicy = "AuthorizationPolicy"
    case peerAuthentication = "PeerAuthentication"

    /// The first one is the one to write.
    var apiVersions: [String] {
        switch self {
        case .mesh, .workload: ["culvert.dev/v1alpha1"]
        case .namespace, .service: ["v1"]
        case .gateway, .httpRoute: ["gateway.networking.k8s.io/v1"]
        case .authorizationPolicy, .peerAuthentication: ["security.istio.io/v1", "security.istio.io/v1beta1"]
        }
    }

    var isNamespaced: Bool { self != .mesh && self != .namespace }

    /// Names that end up as one piece of a DNS name are labels.
    var needsLabelName: Bool { self == .namespace || self == .service }

    /// Kinds that a later version will read.
    static let planned = ["GRPCRoute", "RequestAuthentication"]
}

/// An object with its envelope read: apiVersion, kind, metadata.
struct Manifest {
    let kind: Kind
    let name: ObjectName
    let labels: [String: String]
    /// Empty when the object has none.
    let spec: Fields
    let report: ObjectReport
    /// Where a label stands, for what is wrong with its meaning.
    let labelFields: [String: Field]
    let annotations: [String: String]
    /// Where an annotation stands, likewise.
    let annotationFields: [String: Field]
}

extension Manifest {
    /// Reads the envelope. Reports what is wrong with it and returns nil when the object cannot even be named.
    init?(_ node: YAMLNode, file: String, findings: Findings) {
        let report = ObjectReport(file: file, line: node.line, column: node.column, findings: findings)
        let root = Field(node: node, path: "", report: report)
        guard let fields = root.fields("an object with apiVersion, kind and metadata") else { return nil }
        // Known before the checks, so that every message can say which object it is about.
        report.kind = node["kind"]?.plainText
        report.name = Self.displayName(of: node)
        self.init(fields, report: report)
    }

    private init?(_ fields: Fields, report: ObjectReport) {
        let kindField = fields.required("kind", "the kind of the object")
        let versionField = fields.required("apiVersion", "the apiVersion of the kind")
        guard let kindField, let kindName = kindField.text() else { return nil }
        if Kind.planned.contains(kindName) {
            kindField.refuse(kindName)
            return nil
        }
        guard let kind = Kind(rawValue: kindName) else {
            kindField.fail("unknown kind, expected one of: \(Kind.allCases.map(\.rawValue).joined(separator: ", "))")
            return nil
        }
        if let versionField, let version = versionField.text(), !kind.apiVersions.contains(version) {
            versionField.fail("expected \(kind.apiVersions[0]), found \(versionField.node.summary)")
        }
        guard let metadata = fields.required("metadata", "a mapping with the object's name")?.fields(),
            let envelope = Metadata(metadata, kind: kind)
        else { return nil }
        self.kind = kind
        self.report = report
        name = envelope.name
        labels = envelope.labels
        labelFields = envelope.labelFields
        annotations = envelope.annotations
        annotationFields = envelope.annotationFields
        spec = fields.optional("spec").map { $0.fields() ?? Fields([], of: $0) } ?? Fields([], of: Self.absent(fields))
        fields.ignore("status")
        fields.end()
    }

    private static func displayName(of node: YAMLNode) -> String? {
        guard let metadata = node["metadata"], let name = metadata["name"]?.plainText else { return nil }
        let kind = node["kind"]?.plainText.flatMap(Kind.init)
        if kind?.isNamespaced == false { return name }
        let namespace = metadata["namespace"]?.plainText ?? (kind == nil ? nil : "default")
        return namespace.map { "\($0)/\(name)" } ?? name
    }

    private static func absent(_ fields: Fields) -> Field {
        Field(node: fields.whole.node, path: "spec", report: fields.whole.report)
    }
}

extension YAMLNode {
    fileprivate subscript(key: String) -> YAMLNode? {
        guard case .mapping(let entries) = content else { return nil }
        return entries.first { $0.key == key }?.value
    }

    fileprivate var plainText: String? {
        guard case .scalar(let text, _) = content, scalarKind == .text, !text.isEmpty else { return nil }
        return text.utf8.count > 253 ? "\(text.prefix(60))…" : text
    }
}

/// `metadata`, with the fields that a cluster adds accepted and ignored.
private struct Metadata {
    var name: ObjectName
    var labels: [String: String] = [:]
    var labelFields: [String: Field] = [:]
    var annotations: [String: String] = [:]
    var annotationFields: [String: Field] = [:]

    init?(_ fields: Fields, kind: Kind) {
        let nameField = fields.required("name", "the object's name")
        let namespaceField = fields.optional("namespace")
        var namespace = kind.isNamespaced ? "default" : ""
        if let namespaceField {
            if !kind.isNamespaced {
                namespaceField.fail("expected no namespace: a \(kind.rawValue) is not in one")
            } else if let text = namespaceField.value(Names.label, { Names.isLabel($0) ? $0 : nil }) {
                namespace = text
            }
        }
        let text = nameField?.text()
        if let nameField, let text, !(kind.needsLabelName ? Names.isLabel(text) : Names.isSubdomain(text)) {
            let shape = kind.needsLabelName ? Names.label : Names.subdomain
            nameField.fail("expected \(shape), found \(nameField.node.summary)")
        }
        name = ObjectName(namespace: namespace, name: text ?? "")
        if let field = fields.optional("labels"), let map = field.fields("a mapping of text to text") {
            readLabels(map)
        }
        if let field = fields.optional("annotations"), let map = field.fields("a mapping of text to text") {
            for (key, field) in map.all() {
                guard let text = field.text() else { continue }
                annotations[key] = text
                annotationFields[key] = field
            }
        }
        fields.ignore(
            "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName",
            "generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid")
        fields.end()
        if text == nil { return nil }
    }

    private mutating func readLabels(_ map: Fields) {
        for (key, field) in map.all() {
            if !Names.isLabelKey(key) {
                field.fail("expected a label key: name or prefix/name")
            }
            let shape = "a label value: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends"
            guard let text = field.value(shape, { Names.isLabelWord($0) ? $0 : nil }) else { continue }
            labels[key] = text
            labelFields[key] = field
        }
    }
}
