public import MeshModel

/// Which proxy speaks: the one next to the caller, the one next to the called, or the waypoint between.
public enum Reporter: String, Hashable, Sendable {
    case source
    case destination
    case waypoint
}

/// One end of a connection as metric labels name it. What is not known is `unknown`, as Istio writes it.
public struct Party: Hashable, Sendable {
    public static let unknown = "unknown"

    public var workload: String
    public var namespace: String
    /// Canonical name and revision (Istio's `*_app` and `*_canonical_service`, `*_version` and
    /// `*_canonical_revision`).
    public var app: String
    public var version: String
    public var principal: SPIFFEID?
    /// Empty when not known.
    public var region: String
    public var zone: String

    public init(
        workload: String = unknown, namespace: String = unknown, app: String = unknown, version: String = unknown,
        principal: SPIFFEID? = nil, region: String = "", zone: String = ""
    ) {
        self.workload = workload
        self.namespace = namespace
        self.app = app
        self.version = version
        self.principal = principal
        self.region = region
        self.zone = zone
    }

    /// `principal` is the identity a caller proved (nil for plaintext), and the workload's own for the one called.
    public init(_ workload: Workload?, principal: SPIFFEID?) {
        guard let workload else {
            self.init(namespace: principal?.namespace ?? Party.unknown, principal: principal)
            return
        }
        self.init(
            workload: workload.name.name, namespace: workload.name.namespace, app: workload.canonicalName,
            version: workload.canonicalRevision, principal: principal, region: workload.locality.region,
            zone: workload.locality.zone)
    }

    /// Nil when the party is not a known workload.
    var name: ObjectName? {
        workload == Party.unknown ? nil : ObjectName(namespace: namespace, name: workload)
    }
}

extension Workload {
    /// Istio's canonical service name: the first of three labels, else the workload's own name.
    var canonicalName: String {
        labels["service.istio.io/canonical-name"] ?? labels["app.kubernetes.io/name"] ?? labels["app"] ?? name.name
    }

    /// Istio's canonical revision: the first of three labels, else `latest`.
    var canonicalRevision: String {
        labels["service.istio.io/canonical-revision"] ?? labels["app.kubernetes.io/version"] ?? labels["version"]
            ?? "latest"
    }
}

extension ObjectName {
    /// The host name of a Service of this name, as `destination_service` and the access log spell it.
    public var serviceHost: String { "\(name).\(namespace).svc.cluster.local" }
}

/// What a connection carried, as far as the proxy that counts it knows.
public enum RequestProtocol: String, Hashable, Sendable {
    case tcp
    case http
}

/// The labels that all traffic families share: one series per distinct value.
public struct ConnectionLabels: Hashable, Sendable {
    public var reporter: Reporter
    public var source: Party
    public var destination: Party
    /// The Service the caller addressed, if it addressed one.
    public var service: ObjectName?
    public var requestProtocol: RequestProtocol
    /// Whether the connection was mutual TLS on the wire.
    public var mutualTLS: Bool

    public init(
        reporter: Reporter, source: Party, destination: Party, service: ObjectName?,
        requestProtocol: RequestProtocol = .tcp, mutualTLS: Bool
    ) {
        self.reporter = reporter
        self.source = source
        self.destination = destination
        self.service = service
        self.requestProtocol = requestProtocol
        self.mutualTLS = mutualTLS
    }
}
