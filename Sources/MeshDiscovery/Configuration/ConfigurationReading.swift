/// The bytes of one file.
public struct ConfigurationFile: Hashable, Sendable {
    /// As messages name it.
    public var name: String
    public var bytes: [UInt8]

    public init(name: String, bytes: [UInt8]) {
        self.name = name
        self.bytes = bytes
    }
}

/// What a set of files says, and everything wrong with it. Valid when `errors` is empty; with errors, `objects` holds
/// what could be understood and must not be served.
public struct ConfigurationReading: Sendable {
    public private(set) var objects = ObjectSet()
    /// In the order of files and lines.
    public private(set) var errors: [ConfigurationError] = []
    public private(set) var warnings: [ConfigurationError] = []
    /// Number of objects by kind; kinds without objects are absent.
    public private(set) var counts: [String: Int] = [:]

    public var isValid: Bool { errors.isEmpty }

    /// - Parameters:
    ///   - files: read in this order.
    ///   - problems: errors met while reading the files, to be reported with the rest.
    ///   - path: what the files are called together, for errors that belong to none of them.
    public init(parsing files: [ConfigurationFile], path: String, problems: [ConfigurationError] = []) {
        let findings = Findings()
        for problem in problems { findings.add(problem) }
        var assembly = Assembly(findings: findings)
        var documents = 0
        var manifests: [Manifest] = []
        for file in files {
            let reader = YAMLReader(file.bytes, limit: ConfigurationLimits.documents - documents)
            documents += reader.documents.count
            for failure in reader.failures {
                findings.add(
                    ConfigurationError(
                        file: file.name, line: failure.line, column: failure.column, message: failure.message))
            }
            for document in reader.documents where !document.isNull {
                manifests += Self.objects(in: document).compactMap {
                    Manifest($0, file: file.name, findings: findings)
                }
            }
        }
        assembly.add(manifests)
        if !findings.hasErrors { assembly.checkReferences() }
        objects = assembly.objects
        for (kind, count) in objects.counts where count > 0 { counts[kind.rawValue] = count }
        if assembly.hasMesh { counts[Kind.mesh.rawValue] = 1 }
        (errors, warnings) = findings.sorted(path: path)
    }

    /// A document is an object, or a `v1 List` of objects as `kubectl get -o yaml` prints it.
    private static func objects(in document: YAMLNode) -> [YAMLNode] {
        guard case .mapping(let entries) = document.content,
            case .scalar("List", _) = entries.first(where: { $0.key == "kind" })?.value.content,
            case .sequence(let items) = entries.first(where: { $0.key == "items" })?.value.content
        else { return [document] }
        return items
    }
}
