import MeshModel

/// Puts manifests together: the Mesh first, because its settings give the others their meaning; then every object; then
/// what must be unique across objects. Reports what is wrong and goes on, so that one reading tells everything.
struct Assembly {
    private(set) var objects = ObjectSet()
    private(set) var hasMesh = false
    private(set) var namespaces: [(Namespace, Manifest)] = []
    private(set) var workloads: [WorkloadRecord] = []
    private(set) var services: [ServiceRecord] = []
    private(set) var gateways: [GatewayRecord] = []
    private(set) var routes: [HTTPRouteRecord] = []
    private(set) var authorizationPolicies: [PolicyRecord<AuthorizationPolicy>] = []
    private(set) var peerAuthentications: [PolicyRecord<PeerAuthentication>] = []

    private let findings: Findings
    private var names: [String: String] = [:]
    private var addresses: [IPAddress: String] = [:]
    private var namespacePaths: [String: String] = [:]

    init(findings: Findings) {
        self.findings = findings
    }

    mutating func add(_ manifests: [Manifest]) {
        addMesh(manifests.filter { $0.kind == .mesh })
        for manifest in manifests where manifest.kind != .mesh { add(manifest) }
        // Workloads before services: of a doubled address the service is told, whose address is easier to change.
        for record in workloads { claim(record) }
        for record in services {
            for (address, field) in record.addresses { claim(address, field, "Service \(record.service.name)") }
        }
    }

    private mutating func addMesh(_ manifests: [Manifest]) {
        for (position, manifest) in manifests.enumerated() {
            let settings = manifest.mesh()
            if position == 0 {
                objects.settings = settings
                hasMesh = true
            } else {
                let first = manifests[0].report
                manifest.report.add(
                    .error, field: "", "expected one Mesh, the first one is at \(first.file):\(first.line)")
            }
        }
    }

    /// A second object of one name is read for its own errors and then left out.
    private mutating func add(_ manifest: Manifest) {
        let isFirst = claimName(of: manifest)
        switch manifest.kind {
        case .mesh: break
        case .namespace:
            let namespace = manifest.namespace()
            guard isFirst else { return }
            namespaces.append((namespace, manifest))
            objects.namespaces.append(namespace)
        case .workload:
            let record = manifest.workload(trustDomain: objects.settings.trustDomain)
            guard isFirst else { return }
            workloads.append(record)
            objects.workloads.append(record.workload)
        case .service:
            let record = manifest.service()
            guard isFirst else { return }
            services.append(record)
            objects.services.append(record.service)
        case .gateway:
            let record = manifest.gateway()
            guard isFirst else { return }
            gateways.append(record)
            objects.gateways.append(record.gateway)
        case .httpRoute:
            let record = manifest.httpRoute()
            guard isFirst else { return }
            routes.append(record)
            objects.routes.append(record.route)
        case .authorizationPolicy:
            let record = manifest.authorizationPolicy(rootNamespace: objects.settings.rootNamespace)
            guard isFirst else { return }
            authorizationPolicies.append(record)
            objects.authorizationPolicies.append(record.policy)
        case .peerAuthentication:
            let record = manifest.peerAuthentication(rootNamespace: objects.settings.rootNamespace)
            guard isFirst else { return }
            peerAuthentications.append(record)
            objects.peerAuthentications.append(record.policy)
        }
    }

    private mutating func claimName(of manifest: Manifest) -> Bool {
        let report = manifest.report
        let key = "\(manifest.kind.rawValue) \(manifest.name)"
        if let earlier = names.updateValue("\(report.file):\(report.line)", forKey: key) {
            names[key] = earlier
            report.add(.error, field: "metadata.name", "already defined at \(earlier)")
            return false
        }
        return true
    }

    private mutating func claim(_ record: WorkloadRecord) {
        let owner = "Workload \(record.workload.name)"
        for (address, field) in record.addresses { claim(address, field, owner) }
        guard let netns = record.workload.netns, let field = record.netns else { return }
        // Two nodes may use one path, each for a namespace of its own.
        let key = "\(record.workload.node) \(netns)"
        if let other = namespacePaths[key] {
            field.fail("expected a network namespace of its own, found that of \(other)")
        } else {
            namespacePaths[key] = owner
        }
    }

    /// An address belongs to one object; one given twice in the same object was reported when it was read.
    private mutating func claim(_ address: IPAddress, _ field: Field, _ owner: String) {
        guard let other = addresses[address] else {
            addresses[address] = owner
            return
        }
        if other != owner { field.fail("expected an address of its own, found that of \(other): \(address)") }
    }
}
