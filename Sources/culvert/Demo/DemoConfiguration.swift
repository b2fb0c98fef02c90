import Foundation
import MeshTestKit

/// The YAML files of the demo's mesh: what a user would write by hand for these pods.
struct DemoConfiguration {
    static let namespace = "demo"
    static let trustDomain = "cluster.local"

    /// A Service with one virtual address of each family.
    struct VirtualService {
        let name: String
        /// The last part of its addresses.
        let number: Int
        let port: Int
        let targetPort: Int
        let application: String
        var waypoint: String?

        var v4: String { "10.96.0.\(number)" }
        var v6: String { "fd96::\(number)" }
        /// Base URLs, IPv4 first.
        var urls: [String] { ["http://\(v4):\(port)", "http://[\(v6)]:\(port)"] }
    }

    static let shop = VirtualService(name: "shop", number: 10, port: 80, targetPort: 8080, application: "shop")
    static let cache = VirtualService(name: "cache", number: 20, port: 6379, targetPort: 6379, application: "cache")
    static let speed = VirtualService(name: "speed", number: 21, port: 5201, targetPort: 5201, application: "cache")
    static let reviews = VirtualService(
        name: "reviews", number: 30, port: 80, targetPort: 8080, application: "reviews", waypoint: "waypoint")
    static let reviewsV1 = VirtualService(
        name: "reviews-v1", number: 31, port: 80, targetPort: 8080, application: "reviews-v1")
    static let reviewsV2 = VirtualService(
        name: "reviews-v2", number: 32, port: 80, targetPort: 8080, application: "reviews-v2")

    static func identity(_ account: String) -> String { "spiffe://\(trustDomain)/ns/\(namespace)/sa/\(account)" }

    /// The folder that both nodes and the waypoint watch.
    let folder: String
    /// Where new versions of a file are written before they are moved into `folder` in one step.
    let draftFolder: String

    func write(_ name: String, _ text: String) throws {
        let draft = "\(draftFolder)/\(name).new"
        try text.write(toFile: draft, atomically: false, encoding: .utf8)
        guard rename(draft, "\(folder)/\(name)") == 0 else {
            throw LabError(.setUp, "cannot write \(folder)/\(name): \(String(cString: strerror(errno)))")
        }
    }

    static func mesh(authorityFolder: String) -> String {
        """
        apiVersion: culvert.dev/v1alpha1
        kind: Mesh
        metadata: {name: default}
        spec:
          trustDomain: \(trustDomain)
          mtls: PERMISSIVE
          ca: {file: {certificate: \(authorityFolder)/ca.pem, key: \(authorityFolder)/ca.key}}
        ---
        apiVersion: v1
        kind: Namespace
        metadata: {name: \(namespace)}

        """
    }

    static func workload(_ pod: LabHost, labels: String) -> String {
        """
        ---
        apiVersion: culvert.dev/v1alpha1
        kind: Workload
        metadata:
          name: \(pod.name)
          namespace: \(namespace)
          labels: {\(labels)}
        spec:
          addresses: ["\(pod.v4)", "\(pod.v6)"]
          node: node-\(pod.nodeNumber)
          serviceAccount: \(pod.name)
          protocol: TLS
          netns: \(pod.namespacePath)

        """
    }

    static func service(_ service: VirtualService) -> String {
        let label = service.waypoint.map { "\n  labels: {istio.io/use-waypoint: \($0)}" } ?? ""
        let carries = service.port == 80 ? "http" : "tcp"
        return """
            ---
            apiVersion: v1
            kind: Service
            metadata:
              name: \(service.name)
              namespace: \(namespace)\(label)
            spec:
              clusterIP: \(service.v4)
              clusterIPs: ["\(service.v4)", "\(service.v6)"]
              selector: {app: \(service.application)}
              ports: [{name: \(carries), port: \(service.port), targetPort: \(service.targetPort)}]

            """
    }

    /// 70 of 100 requests to v1, the others to v2, both with a header added; a header of the caller chooses v2 alone.
    static let waypoint = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: waypoint, namespace: \(namespace)}
        spec:
          gatewayClassName: culvert-waypoint
          listeners: [{name: mesh, port: 15008, protocol: HBONE}]
        ---
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: reviews, namespace: \(namespace)}
        spec:
          parentRefs: [{group: "", kind: Service, name: reviews, port: 80}]
          rules:
            - matches: [{headers: [{name: x-version, value: v2}]}]
              backendRefs: [{name: reviews-v2, port: 80}]
            - filters:
                - type: RequestHeaderModifier
                  requestHeaderModifier: {set: [{name: x-culvert-demo, value: weighted}]}
              backendRefs:
                - {name: reviews-v1, port: 80, weight: 70}
                - {name: reviews-v2, port: 80, weight: 30}

        """

    /// Only `client` may call `shop`. With `shutOut`, a second policy takes that away again.
    static func policy(shutOut: Bool = false) -> String {
        func policy(_ name: String, _ action: String) -> String {
            """
            apiVersion: security.istio.io/v1
            kind: AuthorizationPolicy
            metadata: {name: \(name), namespace: \(namespace)}
            spec:
              selector: {matchLabels: {app: shop}}
              action: \(action)
              rules:
                - from: [{source: {principals: ["\(trustDomain)/ns/\(namespace)/sa/client"]}}]

            """
        }
        return policy("shop-callers", "ALLOW") + (shutOut ? "---\n" + policy("shut-out", "DENY") : "")
    }
}
