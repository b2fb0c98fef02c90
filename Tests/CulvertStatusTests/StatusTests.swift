import ArgumentParser
import Foundation
import MeshAdmin
import MeshModel
import MeshTelemetry
import Testing

@testable import culvert

@Suite("culvert status")
struct StatusTests {
    private static let mesh = MeshSnapshot(
        generation: 3,
        workloads: [
            Workload(
                name: ObjectName(namespace: "default", name: "shop"), addresses: [IPAddress(v4: 1)], node: "node-1",
                netns: "/var/run/netns/shop"),
            Workload(
                name: ObjectName(namespace: "default", name: "far"), addresses: [IPAddress(v4: 2)], node: "node-2"),
        ], services: [Service(name: ObjectName(namespace: "default", name: "shop"))],
        peerAuthentications: [
            PeerAuthentication(name: ObjectName(namespace: "default", name: "p"), scope: .namespace, mode: nil)
        ])

    /// The report about a daemon that waits for `notReady`, asked over a real socket.
    private static func report(notReady: [String], metricsPort: Bool = false) async throws -> StatusReport {
        let connections = [OpenConnection.Direction.inbound, .outbound, .outbound].map { direction in
            OpenConnection(
                workload: mesh.workloads[0].name, direction: direction,
                source: SocketAddress(ip: IPAddress(v4: 9), port: 9), originalDestination: nil, actualDestination: nil,
                isTunnel: false, peerIdentity: nil, bytesFromClient: 0, bytesToClient: 0, ageMilliseconds: 0)
        }
        let sources = AdminSources(
            daemon: DaemonFacts(kind: .node, name: "node-1", version: "0.1.0", cores: 2), snapshot: { mesh },
            connections: { connections }, certificates: { [] }, metrics: { "" }, notReady: { notReady },
            logLevel: { "info" }, setLogLevel: { _ in nil })
        return try await asking(sources, metricsPort: metricsPort) { try StatusReport(asking: $0) }
    }

    @Test("A ready daemon")
    func ready() async throws {
        let report = try await Self.report(notReady: [])
        #expect(report.ready)
        #expect(
            report.text == """
                culvert-node node-1 (version 0.1.0, 2 cores): ready
                  mesh         generation 3, trust domain cluster.local, mTLS PERMISSIVE, same node direct
                  objects      2 workloads (1 here), 1 services, 0 gateways, 0 routes, 1 policies
                  connections  1 inbound, 2 outbound
                """)
    }

    @Test("A daemon that waits says for what, in both formats")
    func notReady() async throws {
        let report = try await Self.report(notReady: ["default/shop: netns /var/run/netns/shop is missing"])
        #expect(!report.ready)
        #expect(report.text.contains("not ready\n  waiting for  default/shop: netns /var/run/netns/shop is missing\n"))
        #expect(try JSONDecoder().decode(StatusReport.self, from: Data(report.json().utf8)) == report)
    }

    @Test("Something else on the port is said, not misread")
    func otherServer() async throws {
        let error = await #expect(throws: AdminClientFailure.self) {
            try await Self.report(notReady: [], metricsPort: true)
        }
        #expect(error?.description.contains("not a Culvert daemon's (status 404)") == true)
    }

    @Test("Nobody there is exit status 3")
    func nobody() throws {
        // Port 0 can never be connected to.
        let command = try StatusCommand.parse(["--admin", "[::1]:0"])
        #expect(throws: ExitCode(3)) { try command.run() }
    }

    @Test("A bad address is bad usage", arguments: ["15000", "localhost", "127.0.0.1", "127.0.0.1:99999"])
    func badAddress(_ text: String) {
        #expect(throws: (any Error).self) { try StatusCommand.parse(["--admin", text]) }
    }

    @Test(
        "Answers that are not HTTP, or are cut off, are refused",
        arguments: [
            "", "garbage\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234",
        ])
    func badAnswers(_ text: String) {
        #expect(throws: AdminClientFailure.self) { try AdminClient.parse(Data(text.utf8)) }
    }
}
