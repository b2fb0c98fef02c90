import MeshModel

extension Manifest {
    func mesh() -> MeshSettings {
        var settings = MeshSettings()
        if let field = spec.optional("trustDomain") {
            let shape = "a trust domain: a-z, 0-9, ., - and _, at most 255"
            settings.trustDomain = field.value(shape) { Names.isTrustDomain($0) ? $0 : nil } ?? settings.trustDomain
        }
        if let field = spec.optional("clusterDomain") {
            settings.clusterDomain =
                field.value(Names.subdomain) { Names.isSubdomain($0) ? $0 : nil } ?? settings.clusterDomain
        }
        if let field = spec.optional("dnsCapture") { settings.dnsCapture = field.boolean() ?? settings.dnsCapture }
        if let field = spec.optional("rootNamespace") {
            settings.rootNamespace = field.value(Names.label) { Names.isLabel($0) ? $0 : nil } ?? settings.rootNamespace
        }
        if let field = spec.optional("mtls") {
            settings.mutualTLS = field.value("PERMISSIVE or STRICT", MutualTLSMode.init) ?? settings.mutualTLS
        }
        if let field = spec.optional("sameNode") {
            settings.sameNode = field.value("direct, proxy or tunnel", SameNodeMode.init) ?? settings.sameNode
        }
        if let field = spec.optional("acceleration") {
            settings.acceleration = field.acceleration() ?? settings.acceleration
        }
        if let file = spec.optional("ca")?.fields("a mapping with file") { settings.authority = authority(file) }
        if let limits = spec.optional("limits")?.fields() { settings.limits = Self.limits(limits) }
        spec.end()
        return settings
    }

    private func authority(_ fields: Fields) -> CertificateAuthorityFiles? {
        guard let file = fields.required("file", "a mapping with certificate and key")?.fields() else {
            fields.end()
            return nil
        }
        let path: (String) -> String? = { $0.isEmpty ? nil : $0 }
        let certificate = file.required("certificate", "the path of a PEM file")?.value("the path of a PEM file", path)
        let key = file.required("key", "the path of a PEM file")?.value("the path of a PEM file", path)
        file.end()
        fields.end()
        guard let certificate, let key else { return nil }
        if certificate == key {
            file.whole.fail("expected two files, found the same path for certificate and key")
        }
        return CertificateAuthorityFiles(certificate: certificate, key: key)
    }
}

extension Field {
    /// `acceleration` of a Mesh or a Workload.
    func acceleration() -> AccelerationMode? {
        // Unquoted, YAML 1.1 makes a boolean of it; the meaning is the same.
        if node.scalarKind == .boolean(false) { return .off }
        return value("\"off\" or sockmap", AccelerationMode.init)
    }
}

// MARK: Limits

extension Manifest {
    private static var counts: [(name: String, WritableKeyPath<Limits, Int>, ClosedRange<Int>)] {
        [
            ("handshakesInFlightPerCore", \.handshakesInFlightPerCore, 1...1_000_000),
            ("streamsPerSession", \.streamsPerSession, 1...1_000_000),
            ("pooledStreamsPerSession", \.pooledStreamsPerSession, 1...1_000_000),
            ("httpHeaderCount", \.httpHeaderCount, 1...10_000),
        ]
    }

    private static var sizes: [(name: String, WritableKeyPath<Limits, Int>, ClosedRange<Int>)] {
        [
            ("headerListBytes", \.headerListBytes, 1024...(1 << 20)),
            ("bufferedBytesPerStream", \.bufferedBytesPerStream, (64 << 10)...(64 << 20)),
            ("bufferedBytesPerSession", \.bufferedBytesPerSession, (64 << 10)...(1 << 30)),
            ("httpHeaderBytes", \.httpHeaderBytes, 1024...(1 << 20)),
        ]
    }

    private static var times: [(name: String, WritableKeyPath<Limits, UInt64>)] {
        [
            ("handshakeTimeout", \.handshakeTimeoutNanoseconds),
            ("firstRequestTimeout", \.firstRequestTimeoutNanoseconds),
            ("connectTimeout", \.connectTimeoutNanoseconds),
            ("tunnelResponseTimeout", \.tunnelResponseTimeoutNanoseconds),
            ("poolIdle", \.poolIdleNanoseconds),
            ("pingInterval", \.pingIntervalNanoseconds),
            ("pingTimeout", \.pingTimeoutNanoseconds),
            ("drain", \.drainNanoseconds),
            ("httpHeadersTimeout", \.httpHeadersTimeoutNanoseconds),
            ("httpIdle", \.httpIdleNanoseconds),
        ]
    }

    /// The names of `Limits` without the unit: times are durations (`10s`), sizes are bytes (`65536`, `64Ki`).
    private static func limits(_ fields: Fields) -> Limits {
        var limits = Limits()
        for (name, member, range) in counts {
            guard let field = fields.optional(name) else { continue }
            let expected = "a whole number from \(range.lowerBound) to \(range.upperBound)"
            if let value = field.integer(range, expected) { limits[keyPath: member] = value }
        }
        for (name, member, range) in sizes {
            guard let field = fields.optional(name) else { continue }
            let expected = "bytes from \(range.lowerBound) to \(range.upperBound), like 65536 or 64Ki"
            guard case .scalar(let text, _) = field.node.content, let value = Quantities.bytes(text),
                range.contains(value)
            else {
                field.fail("expected \(expected), found \(field.node.summary)")
                continue
            }
            limits[keyPath: member] = value
        }
        for (name, member) in times {
            guard let field = fields.optional(name) else { continue }
            guard case .scalar(let text, _) = field.node.content, let value = Quantities.duration(text),
                (1_000_000...86_400_000_000_000).contains(value)
            else {
                field.fail("expected a time from 1ms to 24h, like 10s or 1m30s, found \(field.node.summary)")
                continue
            }
            limits[keyPath: member] = value
        }
        fields.end()
        return limits
    }
}
