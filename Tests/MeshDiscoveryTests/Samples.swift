/// A configuration that uses every kind and nearly every field.
enum Samples {
    static let everything = """
        apiVersion: culvert.dev/v1alpha1
        kind: Mesh
        metadata: {name: default}
        spec:
          trustDomain: example.org
          rootNamespace: mesh-system
          clusterDomain: k8s.example.org
          dnsCapture: false
          mtls: STRICT
          sameNode: tunnel
          acceleration: sockmap
          ca: {file: {certificate: ca.pem, key: ca.key}}
          limits: {drain: 1m30s, headerListBytes: 32Ki, streamsPerSession: 7, pingInterval: 500ms}
        ---
        apiVersion: v1
        kind: Namespace
        metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: way}}
        spec: {finalizers: [kubernetes]}
        status: {phase: Active}
        ---
        apiVersion: culvert.dev/v1alpha1
        kind: Workload
        metadata:
          name: front-1
          namespace: shop
          labels: {app: front}
          annotations: {ambient.istio.io/dns-capture: "true", example.org/note: any}
        spec:
          addresses: [10.1.0.1, "fd00::1"]
          node: node-1
          serviceAccount: front
          protocol: TLS
          netns: /var/run/netns/front
          ports: {web: 8080}
          hostname: front-1
          network: net-1
          locality: {region: eu, zone: eu-1, subzone: r7}
          healthy: true
          acceleration: off
        ---
        apiVersion: culvert.dev/v1alpha1
        kind: Workload
        metadata: {name: legacy, namespace: shop, labels: {app: legacy}}
        spec: {addresses: [10.1.0.2], protocol: TCP, healthy: false}
        ---
        apiVersion: culvert.dev/v1alpha1
        kind: Workload
        metadata: {name: way-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: way}}
        spec: {addresses: [10.1.0.3], node: node-2, serviceAccount: way, protocol: TLS}
        ---
        apiVersion: v1
        kind: Service
        metadata:
          name: front
          namespace: shop
          uid: 5f0c
          resourceVersion: "12"
          creationTimestamp: 2026-01-02T03:04:05Z
          annotations: {a: b}
          managedFields: [{manager: kubectl}]
        spec:
          type: ClusterIP
          clusterIP: 10.96.0.1
          clusterIPs: [10.96.0.1, "fd00:96::1"]
          ipFamilies: [IPv4, IPv6]
          ipFamilyPolicy: PreferDualStack
          internalTrafficPolicy: Cluster
          sessionAffinity: None
          selector: {app: front}
          ports:
          - {name: http, port: 80, targetPort: web, protocol: TCP}
          - {name: raw, port: 9000, targetPort: 9001}
          - {name: plain, port: 81, appProtocol: http}
        ---
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: way, namespace: shop, labels: {istio.io/waypoint-for: service}}
        spec:
          gatewayClassName: culvert-waypoint
          listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Same}}}]
        ---
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: front, namespace: shop}
        spec:
          parentRefs: [{group: "", kind: Service, name: front, port: 80}]
          hostnames: [front.example.org, "*.example.org"]
          rules:
          - name: api
            matches:
            - path: {type: Exact, value: /api}
              headers: [{type: Exact, name: X-Version, value: "2"}]
              method: GET
            - path: {value: /v2}
            filters:
            - type: RequestHeaderModifier
              requestHeaderModifier:
                set: [{name: X-Set, value: a}]
                add: [{name: X-Add, value: b}]
                remove: [X-Gone]
            backendRefs:
            - {name: front, port: 80, weight: 70}
            - {group: "", kind: Service, name: front, namespace: shop, port: 81, weight: 30}
          - backendRefs: [{name: front, port: 80}]
        ---
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: callers, namespace: shop}
        spec:
          selector: {matchLabels: {app: front}}
          action: ALLOW
          rules:
          - from:
            - source:
                principals: [example.org/ns/shop/sa/front, "*/sa/way", "other.org/*", "*"]
                notPrincipals: [example.org/ns/shop/sa/bad]
                namespaces: [shop, "team-*"]
                notNamespaces: [dark]
                ipBlocks: [10.0.0.0/8, 192.0.2.1]
                notIpBlocks: ["fd00::/8"]
            - source: {serviceAccounts: [shop/front, way], notServiceAccounts: [x/y]}
            to:
            - operation: {ports: ["80", 8080], notPorts: ["22"]}
        ---
        apiVersion: security.istio.io/v1beta1
        kind: AuthorizationPolicy
        metadata: {name: at-waypoint, namespace: shop}
        spec:
          targetRefs: [{group: "", kind: Service, name: front}]
          action: DENY
          rules: [{}]
        ---
        apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: {name: nobody, namespace: mesh-system}
        spec: {}
        ---
        apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: {name: ports, namespace: shop}
        spec:
          selector: {matchLabels: {app: front}}
          mtls: {mode: UNSET}
          portLevelMtls: {8080: {mode: PERMISSIVE}, "9001": {mode: STRICT}}

        """
}
