/// Envoy's configuration as text: what the operator of another HBONE implementation would write.
struct EnvoyConfiguration {
    let authority: String
    let credentials: PeersMesh.Credentials

    /// HTTP/2 and nothing else over TLS 1.3, both sides with a certificate.
    private var commonTLS: String {
        """
        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates:
            - certificate_chain: {filename: \(credentials.certificate)}
              private_key: {filename: \(credentials.key)}
          validation_context:
            trusted_ca: {filename: \(authority)}
        """
    }

    /// One tunnel of the client: what comes to `port` is sent as a CONNECT for `target`:`targetPort` through the
    /// session to `target`:15008, whose certificate must be `identity`'s.
    struct Tunnel {
        let port: Int
        let target: String
        let targetPort: Int
        let identity: String

        var authority: String { target.contains(":") ? "[\(target)]:\(targetPort)" : "\(target):\(targetPort)" }
    }

    func client(_ tunnels: [Tunnel], log: String) -> String {
        "static_resources:\n  listeners:\n" + tunnels.map { listener($0, log) }.joined() + "  clusters:\n"
            + tunnels.map(cluster).joined()
    }

    private func listener(_ tunnel: Tunnel, _ log: String) -> String {
        """
            - name: from-\(tunnel.port)
              address: {socket_address: {address: 127.0.0.1, port_value: \(tunnel.port)}}
              filter_chains:
                - filters:
                    - name: envoy.filters.network.tcp_proxy
                      typed_config:
                        "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                        stat_prefix: from-\(tunnel.port)
                        cluster: to-\(tunnel.port)
                        tunneling_config: {hostname: "\(tunnel.authority)"}
                        max_connect_attempts: 1
                        access_log:
                          - name: envoy.access_loggers.file
                            typed_config:
                              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
                              path: \(log)
                              log_format: {text_format_source: {inline_string: "\(tunnel.port) flags=%RESPONSE_FLAGS%\\n"}}

        """
    }

    private func cluster(_ tunnel: Tunnel) -> String {
        """
            - name: to-\(tunnel.port)
              type: STATIC
              connect_timeout: 20s
              typed_extension_protocol_options:
                envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
                  "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
                  explicit_http_config: {http2_protocol_options: {}}
              load_assignment:
                cluster_name: to-\(tunnel.port)
                endpoints:
                  - lb_endpoints:
                      - endpoint:
                          address: {socket_address: {address: "\(tunnel.target)", port_value: 15008}}
              transport_socket:
                name: envoy.transport_sockets.tls
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        \(commonTLS.indented(by: 10))
                      match_typed_subject_alt_names:
                        - san_type: URI
                          matcher: {exact: "\(tunnel.identity)"}

        """
    }

    /// Takes CONNECT on 15008 of every address and leads each to `port` on localhost.
    ///
    /// A caller has to end its direction first: when the application does, Envoy 1.40 resets the stream and drops what
    /// the stream's window has not let through yet. Its TCP upstream knows no half-closed peer (upstream_request.cc says
    /// so; the runtime feature for half-closes only turns INTERNAL_ERROR into CONNECT_ERROR). RFC 9113 §8.5 wants all of
    /// it and END_STREAM after a FIN, so what we make of the reset, an abort of the connection, is right.
    /// - Parameter requestsPerSession: after so many, Envoy ends the session in the orderly way (RFC 9113 §6.8).
    func server(to port: Int, requestsPerSession: Int) -> String {
        """
        static_resources:
          listeners:
            - name: tunnels
              address: {socket_address: {address: "::", port_value: 15008, ipv4_compat: true}}
              filter_chains:
                - filters:
                    - name: envoy.filters.network.http_connection_manager
                      typed_config:
                        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                        stat_prefix: tunnels
                        codec_type: HTTP2
                        http2_protocol_options: {allow_connect: true}
                        common_http_protocol_options: {max_requests_per_connection: \(requestsPerSession)}
                        upgrade_configs: [{upgrade_type: CONNECT}]
                        route_config:
                          virtual_hosts:
                            - name: all
                              domains: ["*"]
                              routes:
                                - match: {connect_matcher: {}}
                                  route:
                                    cluster: application
                                    upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]
                        http_filters:
                          - name: envoy.filters.http.router
                            typed_config:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                  transport_socket:
                    name: envoy.transport_sockets.tls
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
                      require_client_certificate: true
        \(commonTLS.indented(by: 14))
          clusters:
            - name: application
              type: STATIC
              connect_timeout: 20s
              load_assignment:
                cluster_name: application
                endpoints:
                  - lb_endpoints:
                      - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: \(port)}}}

        """
    }
}

extension String {
    fileprivate func indented(by count: Int) -> String {
        let margin = String(repeating: " ", count: count)
        return split(separator: "\n").map { margin + $0 }.joined(separator: "\n")
    }
}
