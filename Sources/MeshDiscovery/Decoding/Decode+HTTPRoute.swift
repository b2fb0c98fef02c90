import MeshModel

/// A route with the fields that later checks point at.
struct HTTPRouteRecord {
    var route: HTTPRoute
    var parents: [(HTTPRoute.Parent, Field)] = []
    var backends: [(HTTPRoute.Backend, Field)] = []
    let manifest: Manifest
}

extension Manifest {
    func httpRoute() -> HTTPRouteRecord {
        var record = HTTPRouteRecord(route: HTTPRoute(name: name, parents: [], rules: []), manifest: self)
        let what = "a Service that the route is for"
        for item in spec.required("parentRefs", "a list of \(what)")?.someItems(what, atMost: 32) ?? [] {
            guard let parent = readParent(item) else { continue }
            if record.route.parents.contains(parent) { item.fail("expected each parent once, found it again") }
            record.route.parents.append(parent)
            record.parents.append((parent, item))
        }
        for item in spec.optional("hostnames")?.items(atMost: 16) ?? [] {
            if let host = item.value(Names.hostName, { Names.isHostName($0) ? $0 : nil }) {
                record.route.hostnames.append(host)
            }
        }
        if let items = spec.optional("rules")?.items(atMost: 16) {
            record.route.rules = items.compactMap { readRule($0, record: &record) }
        } else {
            // Gateway API's default: one rule that matches everything.
            record.route.rules = [HTTPRoute.Rule()]
        }
        spec.refuse("useDefaultGateways")
        spec.end()
        return record
    }

    private func readParent(_ item: Field) -> HTTPRoute.Parent? {
        guard let fields = item.fields("a reference to a Service") else { return nil }
        defer { fields.end() }
        fields.refuse("sectionName")
        let port = fields.optional("port")?.port()
        guard let service = readReference(fields, kind: fields.required("kind", "Service"), what: "parent") else {
            return nil
        }
        return HTTPRoute.Parent(service: service, port: port)
    }

    /// Reads group, kind, namespace and name of a reference to a Service of this namespace.
    private func readReference(_ fields: Fields, kind: Field?, what: String) -> ObjectName? {
        var isService = kind != nil || what == "backend"
        if let kind, let text = kind.text("Service"), text != "Service" {
            isService = false
            if text == "Gateway" || text == "ServiceEntry" {
                kind.refuse("a \(what) of kind \(text); expected Service")
            } else {
                kind.fail("expected Service, found \(kind.node.summary)")
            }
        }
        if let group = fields.optional("group"), let text = group.text("\"\""), isService, !text.isEmpty, text != "core"
        {
            group.fail("expected \"\" (the group of Services), found \(group.node.summary)")
        }
        var isLocal = true
        if let field = fields.optional("namespace") {
            let text = field.value(Names.label) { Names.isLabel($0) ? $0 : nil }
            if let text, text != name.namespace {
                isLocal = false
                field.refuse("a \(what) of another namespace; expected \(name.namespace)")
            }
        }
        let text = fields.required("name", "the name of a Service")?.value(Names.label) { Names.isLabel($0) ? $0 : nil }
        guard let text, isService, isLocal else { return nil }
        return ObjectName(namespace: name.namespace, name: text)
    }

    private func readRule(_ item: Field, record: inout HTTPRouteRecord) -> HTTPRoute.Rule? {
        guard let fields = item.fields("a rule") else { return nil }
        var rule = HTTPRoute.Rule()
        // The name only serves policies that attach to a rule.
        fields.ignore("name")
        if let matches = fields.optional("matches")?.items(atMost: 64), !matches.isEmpty {
            rule.matches = matches.compactMap(Self.readMatch)
        }
        rule.requestHeaders = fields.optional("filters").map(Self.readFilters) ?? []
        for item in fields.optional("backendRefs")?.items(atMost: 16) ?? [] {
            guard let backend = readBackend(item) else { continue }
            rule.backends.append(backend)
            record.backends.append((backend, item))
        }
        fields.refuse("timeouts", "retry", "sessionPersistence")
        fields.end()
        return rule
    }

    private func readBackend(_ item: Field) -> HTTPRoute.Backend? {
        guard let fields = item.fields("a reference to a Service") else { return nil }
        let service = readReference(fields, kind: fields.optional("kind"), what: "backend")
        let port = fields.required("port", "a port of the Service")?.port()
        var weight: UInt32 = 1
        if let field = fields.optional("weight") {
            weight = field.integer(0...1_000_000, "a weight from 0 to 1000000").map { UInt32($0) } ?? 1
        }
        let filters = fields.optional("filters").map(Self.readFilters) ?? []
        fields.end()
        guard let service, let port else { return nil }
        return HTTPRoute.Backend(service: service, port: port, weight: weight, requestHeaders: filters)
    }
}

// MARK: Matches

extension Manifest {
    private static let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]

    private static func readMatch(_ item: Field) -> HTTPRoute.Match? {
        guard let fields = item.fields("a match") else { return nil }
        var match = HTTPRoute.Match()
        if let field = fields.optional("path"), let path = readPath(field) { match.path = path }
        match.headers = fields.optional("headers").map(readHeaderMatches) ?? []
        let expected = "one of: \(methods.joined(separator: ", "))"
        match.method = fields.optional("method")?.value(expected) { methods.contains($0) ? $0 : nil }
        fields.refuse("queryParams")
        fields.end()
        return match
    }

    private static func readPath(_ field: Field) -> HTTPRoute.PathMatch? {
        guard let fields = field.fields("a path match with type and value") else { return nil }
        defer { fields.end() }
        let type = fields.optional("type")
        let kind = type?.text("Exact or PathPrefix") ?? "PathPrefix"
        let value = fields.optional("value")?.value("an absolute path without //, /./, /../, # or escaped slashes") {
            isPath($0) ? $0 : nil
        }
        switch kind {
        case "Exact": return .exact(value ?? "/")
        case "PathPrefix": return .prefix(value ?? "/")
        case "RegularExpression": type?.refuse("path match RegularExpression; expected Exact or PathPrefix")
        default: type?.fail("expected Exact or PathPrefix, found \(type?.node.summary ?? kind)")
        }
        return nil
    }

    /// What Gateway API accepts: nothing that a normalising server could read as another path.
    private static func isPath(_ text: String) -> Bool {
        text.hasPrefix("/") && text.utf8.count <= 1024 && text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7f }
            && !["//", "/./", "/../", "%2f", "%2F", "#", "?"].contains { text.contains($0) }
            && !text.hasSuffix("/..") && !text.hasSuffix("/.")
    }

    private static func readHeaderMatches(_ field: Field) -> [HTTPRoute.HeaderMatch] {
        var seen: Set<String> = []
        return (field.items("a list of header matches", atMost: 16) ?? []).compactMap { item in
            guard let fields = item.fields("a header match with name and value") else { return nil }
            defer { fields.end() }
            if let type = fields.optional("type"), let text = type.text("Exact"), text != "Exact" {
                if text == "RegularExpression" {
                    type.refuse("header match RegularExpression; expected Exact")
                } else {
                    type.fail("expected Exact, found \(type.node.summary)")
                }
            }
            guard let header = readHeader(fields) else { return nil }
            if !seen.insert(header.name).inserted { item.fail("expected each header once, found \(header.name) again") }
            return HTTPRoute.HeaderMatch(name: header.name, value: header.value)
        }
    }

    private static func headerName(_ field: Field?) -> String? {
        field?.value("a header name (RFC 9110)") { Names.isHeaderName($0) ? $0.lowercased() : nil }
    }

    private static func readHeader(_ fields: Fields) -> (name: String, value: String)? {
        let name = headerName(fields.required("name", "a header name"))
        let value = fields.required("value", "a header value")?.value("a header value (RFC 9110)") {
            Names.isHeaderValue($0) ? $0 : nil
        }
        guard let name, let value else { return nil }
        return (name, value)
    }
}

// MARK: Filters

extension Manifest {
    private static let laterFilters = [
        "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS", "ExternalAuth",
        "ExtensionRef",
    ]

    private static func readFilters(_ field: Field) -> [HTTPRoute.HeaderModifier] {
        var modifiers: [HTTPRoute.HeaderModifier] = []
        for item in field.items("a list of filters", atMost: 16) ?? [] {
            guard let fields = item.fields("a filter"),
                let type = fields.required("type", "RequestHeaderModifier"),
                let name = type.text("RequestHeaderModifier")
            else { continue }
            if laterFilters.contains(name) {
                type.refuse("filter \(name); expected RequestHeaderModifier")
                continue
            }
            guard name == "RequestHeaderModifier" else {
                type.fail("expected RequestHeaderModifier, found \(type.node.summary)")
                continue
            }
            if let body = fields.required("requestHeaderModifier", "a mapping with set, add and remove")?.fields() {
                modifiers.append(readModifier(body))
            }
            fields.end()
            if modifiers.count > 1 { item.fail("expected RequestHeaderModifier once, found it again") }
        }
        return modifiers
    }

    private static func readModifier(_ fields: Fields) -> HTTPRoute.HeaderModifier {
        var seen: Set<String> = []
        func once(_ name: String, _ item: Field) {
            if !seen.insert(name).inserted { item.fail("expected each header once, found \(name) again") }
            if name == "host" || name.hasPrefix(":") {
                item.refuse("changing \(name) with RequestHeaderModifier")
            }
        }
        func pairs(_ field: Field?) -> [HTTPRoute.HeaderModifier.Field] {
            (field?.items("a list of headers", atMost: 16) ?? []).compactMap { item in
                guard let header = item.fields("a header with name and value") else { return nil }
                defer { header.end() }
                guard let pair = readHeader(header) else { return nil }
                once(pair.name, item)
                return HTTPRoute.HeaderModifier.Field(name: pair.name, value: pair.value)
            }
        }
        let set = pairs(fields.optional("set"))
        let add = pairs(fields.optional("add"))
        let remove = (fields.optional("remove")?.items("a list of header names", atMost: 16) ?? []).compactMap { item in
            let name = headerName(item)
            if let name { once(name, item) }
            return name
        }
        fields.end()
        return HTTPRoute.HeaderModifier(set: set, add: add, remove: remove)
    }
}
