import MeshModel

extension Manifest {
    private static let trafficPrefix = "traffic.sidecar.istio.io/"
    /// Istio's, for virtual machines inside a pod.
    private static let plannedTraffic = ["excludeInterfaces", "kubevirtInterfaces"].map { trafficPrefix + $0 }
    private static let knownTraffic = [
        Annotations.includeOutboundIPRanges, Annotations.excludeOutboundIPRanges, Annotations.includeOutboundPorts,
        Annotations.excludeOutboundPorts, Annotations.includeInboundPorts, Annotations.excludeInboundPorts,
    ]

    /// The annotations that keep traffic out of the mesh, as Istio reads them: lists with commas, `*` for everything,
    /// an empty text for nothing.
    func readScope(isCaptured: Bool) -> CaptureScope {
        for (key, field) in annotationFields where key.hasPrefix(Self.trafficPrefix) {
            if Self.plannedTraffic.contains(key) { field.refuse(key) }
            if !(Self.knownTraffic + Self.plannedTraffic).contains(key) {
                let names = Self.knownTraffic.map { $0.dropFirst(Self.trafficPrefix.count) }
                field.fail(
                    "unknown annotation, expected \(Self.trafficPrefix) and one of: \(names.joined(separator: ", "))")
            }
        }
        var scope = CaptureScope()
        if let field = annotationFields[Annotations.includeOutboundIPRanges] {
            scope.includedOutbound = field.listOrAll("CIDR blocks", example: "10.0.0.0/8,fd00::/8", CIDR.init)
        }
        scope.excludedOutbound = annotationFields[Annotations.excludeOutboundIPRanges]?.blocks ?? []
        scope.includedOutboundPorts = annotationFields[Annotations.includeOutboundPorts]?.ports ?? []
        scope.excludedOutboundPorts = annotationFields[Annotations.excludeOutboundPorts]?.ports ?? []
        if let field = annotationFields[Annotations.includeInboundPorts] {
            scope.includedInboundPorts = field.listOrAll("ports", example: "80,8443", Field.portNumber).map(Set.init)
        }
        scope.excludedInboundPorts = annotationFields[Annotations.excludeInboundPorts]?.ports ?? []
        readBypass(into: &scope)
        warnAboutScope(scope, isCaptured: isCaptured)
        return scope
    }

    private func readBypass(into scope: inout CaptureScope) {
        guard let field = annotationFields[Annotations.bypassInboundCapture] else { return }
        switch annotations[Annotations.bypassInboundCapture] {
        case "false": break
        case "true":
            for key in [Annotations.includeInboundPorts, Annotations.excludeInboundPorts] {
                annotationFields[key]?.warn("has no effect with \(Annotations.bypassInboundCapture)")
            }
            scope.includedInboundPorts = []
        default: field.fail("expected \"true\" or \"false\", found \(field.node.summary)")
        }
    }

    private func warnAboutScope(_ scope: CaptureScope, isCaptured: Bool) {
        if !isCaptured {
            for key in Self.knownTraffic + [Annotations.bypassInboundCapture] {
                annotationFields[key]?.warn("has no effect: the workload is not captured")
            }
            return
        }
        if scope.includedOutbound == nil, !scope.includedOutboundPorts.isEmpty {
            annotationFields[Annotations.includeOutboundPorts]?.warn(
                "has no effect: without \(Annotations.includeOutboundIPRanges) every address is included")
        }
        if scope.includedInboundPorts != nil, annotations[Annotations.bypassInboundCapture] != "true" {
            annotationFields[Annotations.excludeInboundPorts]?.warn(
                "has no effect: \(Annotations.includeInboundPorts) lists all that is included")
        }
        if let port = scope.excludedInboundPorts.filter(ProxyPort.isRecursive).min() {
            annotationFields[Annotations.excludeInboundPorts]?.warn("has no effect for \(port), a port of the proxy")
        }
    }
}

extension Field {
    static func portNumber(_ text: String) -> UInt16? {
        UInt16(text).flatMap { $0 > 0 && String($0) == text ? $0 : nil }
    }

    fileprivate var ports: Set<UInt16>? { list("ports", example: "80,8443", Self.portNumber).map(Set.init) }
    fileprivate var blocks: [CIDR]? { list("CIDR blocks", example: "10.0.0.0/8,fd00::/8", CIDR.init) }

    /// Values with commas between them and blanks around them; an empty text is an empty list.
    private func list<Value>(
        _ what: String, example: String, orAll: Bool = false, _ parse: (String) -> Value?
    ) -> [Value]? {
        let expected = "\(orAll ? "* or " : "")\(what) with commas between them, like \(example)"
        guard let text = text(expected) else { return nil }
        guard text.contains(where: { $0 != " " }) else { return [] }
        var values: [Value] = []
        for piece in text.split(separator: ",", omittingEmptySubsequences: false) {
            let word = String(piece.drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
            guard let value = parse(word) else {
                fail("expected \(expected), found \"\(word.prefix(60))\" in it")
                return nil
            }
            values.append(value)
        }
        return values
    }

    /// nil for `*`, and for what is wrong.
    fileprivate func listOrAll<Value>(_ what: String, example: String, _ parse: (String) -> Value?) -> [Value]? {
        if case .scalar("*", _) = node.content { return nil }
        return list(what, example: example, orAll: true, parse)
    }
}
