import Foundation
import MeshModel
internal import MeshTelemetry

/// `/config_dump` in the shape that `istioctl ztunnel-config` reads (keys and spellings are its interface).
struct ConfigDump: Encodable {
    struct Version: Encodable {
        let version: String
    }

    struct Config: Encodable {
        let numWorkerThreads: Int
    }

    let workloads: [Workload]
    let services: [Service]
    let policies: [Policy]
    let certificates: [Certificate]
    let workloadState: [String: State]
    let version: Version
    let config: Config

    init(
        _ mesh: MeshSnapshot, daemon: DaemonFacts, connections: [OpenConnection], certificates: [AdminCertificate]
    ) {
        let meshWide = mesh.authorizationPolicies.filter { policy in
            switch policy.scope {
            case .mesh, .namespace, .selector: true
            case .services, .gateways: false
            }
        }
        workloads = mesh.workloads.map { Workload($0, in: mesh) }
        services = mesh.services.map { Service($0, in: mesh) }
        policies = meshWide.map(Policy.init)
        self.certificates = certificates.map(Certificate.init)
        let own = daemon.kind == .node ? mesh.localWorkloads(node: daemon.name) : []
        let byWorkload = Dictionary(grouping: connections, by: \.workload)
        workloadState = Dictionary(
            uniqueKeysWithValues: own.map { ($0.name.description, State($0, byWorkload[$0.name] ?? [])) })
        version = Version(version: daemon.version)
        config = Config(numWorkerThreads: daemon.cores)
    }

    struct Waypoint: Encodable {
        /// `NAMESPACE/NAME` of the Gateway.
        let destination: String
        let hboneMtlsPort = ProxyPort.tunnel
    }

    struct Workload: Encodable {
        let uid: String
        let name: String
        let namespace: String
        let serviceAccount: String
        let workloadIps: [String]
        let `protocol`: String
        let node: String
        let trustDomain: String
        let waypoint: Waypoint?
        let status: String
        let locality: [String: String]

        init(_ workload: MeshModel.Workload, in mesh: MeshSnapshot) {
            uid = workload.name.description
            name = workload.name.name
            namespace = workload.name.namespace
            serviceAccount = workload.serviceAccount
            workloadIps = workload.addresses.map(\.description)
            self.protocol = mesh.isMeshed(workload) ? "HBONE" : "TCP"
            node = workload.node
            trustDomain = workload.trustDomain
            waypoint = mesh.waypoint(ofWorkload: workload.name).map { Waypoint(destination: $0.description) }
            status = workload.healthy ? "Healthy" : "Unhealthy"
            let place = workload.locality
            locality = ["region": place.region, "zone": place.zone, "subzone": place.subzone].filter {
                !$0.value.isEmpty
            }
        }
    }

    struct Service: Encodable {
        struct Endpoint: Encodable {
            let workloadUid: String
            let port: [String: UInt16]
            let status = "Healthy"
        }

        let name: String
        let namespace: String
        let hostname: String
        let vips: [String]
        let ports: [String: UInt16]
        let endpoints: [String: Endpoint]
        let waypoint: Waypoint?

        init(_ service: MeshModel.Service, in mesh: MeshSnapshot) {
            name = service.name.name
            namespace = service.name.namespace
            hostname = "\(name).\(namespace).svc.cluster.local"
            // The empty network stands before the slash.
            vips = service.addresses.map { "/\($0)" }
            // A named target is each endpoint's own; 0 says so.
            ports = Service.targets(service.ports, namedPorts: nil)
            endpoints = Dictionary(
                mesh.endpoints(ofService: service.name).map { workload in
                    let port = Service.targets(service.ports, namedPorts: workload.namedPorts)
                    return (workload.name.description, Endpoint(workloadUid: workload.name.description, port: port))
                }
            ) { first, _ in first }
            waypoint = mesh.waypoint(ofService: service.name).map { Waypoint(destination: $0.description) }
        }

        private static func targets(_ ports: [ServicePort], namedPorts: [String: UInt16]?) -> [String: UInt16] {
            var targets: [String: UInt16] = [:]
            for port in ports {
                switch port.target {
                case .number(let number): targets[String(port.port)] = number
                case .name(let name):
                    if let namedPorts {
                        targets[String(port.port)] = namedPorts[name]
                    } else {
                        targets[String(port.port)] = 0
                    }
                }
            }
            return targets
        }
    }

    struct State: Encodable {
        struct Connection: Encodable {
            let src: String
            let originalDst: String?
            let actualDst: String?
            let `protocol`: String

            init(_ connection: OpenConnection) {
                src = connection.source.description
                originalDst = connection.originalDestination?.description
                actualDst = connection.actualDestination?.description
                self.protocol = connection.isTunnel ? "HBONE" : "TCP"
            }
        }

        struct Info: Encodable {
            let name: String
            let namespace: String
            let serviceAccount: String
        }

        let state = "Up"
        let connections: [String: [Connection]]
        let info: Info

        init(_ workload: MeshModel.Workload, _ connections: [OpenConnection]) {
            self.connections = [
                "inbound": connections.filter { $0.direction == .inbound }.map(Connection.init),
                "outbound": connections.filter { $0.direction == .outbound }.map(Connection.init),
            ]
            info = Info(
                name: workload.name.name, namespace: workload.name.namespace, serviceAccount: workload.serviceAccount)
        }
    }

    struct Certificate: Encodable {
        struct Link: Encodable {
            /// Base64 of the PEM text.
            let pem: String
            var serialNumber: String?
            var validFrom: String?
            var expirationTime: String?
        }

        let identity: String
        let state: String
        let certChain: [Link]
        let rootCerts: [Link]

        init(_ certificate: AdminCertificate) {
            identity = certificate.identity.description
            state = certificate.state
            certChain = certificate.chainPEM.enumerated().map { position, pem in
                var link = Link(pem: Data(pem.utf8).base64EncodedString())
                if position == 0 {
                    link.serialNumber = certificate.serialNumber
                    link.validFrom = timeText(certificate.notBefore)
                    link.expirationTime = timeText(certificate.notAfter)
                }
                return link
            }
            rootCerts = certificate.rootsPEM.map { Link(pem: Data($0.utf8).base64EncodedString()) }
        }
    }
}
