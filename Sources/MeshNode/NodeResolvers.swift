internal import Foundation
internal import Logging
internal import MeshModel
internal import MeshProxy

/// The node's own resolvers as resolv.conf(5) names them: whom workloads' questions go to that were put to the proxy
/// itself. Looked at again and again, since they change while the daemon runs.
struct NodeResolvers: Sendable {
    let path: String
    let plane: DataPlane
    let logger: Logger

    private static let interval = Duration.seconds(5)

    func follow() async {
        var known: [SocketAddress]?
        while !Task.isCancelled {
            let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
            let servers = Self.servers(in: text)
            if servers != known {
                known = servers
                logger.info("resolvers of the node: \(servers.map { "\($0.ip)" }.joined(separator: ", "))")
                plane.post { $0.nodeResolvers = servers }
            }
            try? await Task.sleep(for: Self.interval)
        }
    }

    /// The C library's resolver uses the first three too (MAXNS).
    private static let maximumServers = 3

    static func servers(in text: String) -> [SocketAddress] {
        let addresses = text.split(whereSeparator: \.isNewline).compactMap { line -> IPAddress? in
            let words = line.split(whereSeparator: \.isWhitespace)
            guard words.count >= 2, words[0] == "nameserver" else { return nil }
            return IPAddress(String(words[1]))
        }
        return addresses.prefix(maximumServers).map { SocketAddress(ip: $0, port: ProxyPort.domain) }
    }
}
