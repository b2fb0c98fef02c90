import ArgumentParser
import Foundation

/// `culvert status`: what the local daemon says about itself.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Show whether the local daemon is ready, and what it serves.",
        discussion: """
            Asks the admin port of a culvert-node or culvert-waypoint on this machine. The port belongs to the network \
            namespace that the daemon was started in.

            EXAMPLES:
              culvert status
              culvert status --admin 127.0.0.1:15100 --output json | jq .notReady

            EXIT STATUS:
              0 ready, 1 not ready, 2 bad usage, 3 the daemon could not be asked
            """)

    @OptionGroup var daemon: AdminOptions

    @Option(name: .shortAndLong, help: "Output format: text or json.")
    var output: OutputFormat = .text

    func run() throws {
        let report: StatusReport
        do throws(AdminClientFailure) {
            report = try StatusReport(asking: daemon.client)
        } catch {
            throw daemon.unreachable(error, command: "status")
        }
        switch output {
        case .text: print(report.text)
        case .json: print(try report.json())
        }
        if !report.ready { throw ExitCode(1) }
    }
}

/// The daemon's answers, reduced to what a person asks first. Also the shape of `--output json`.
struct StatusReport: Codable, Hashable {
    struct Daemon: Codable, Hashable {
        let kind: String
        let name: String
        let version: String
        let cores: Int
        /// Absent for a waypoint, which captures nothing.
        let captureLevel: String?
        /// Only a node's daemon says it.
        let acceleration: String?
    }

    struct Mesh: Codable, Hashable {
        let generation: UInt64
        let trustDomain: String
        let mtls: String
        let sameNode: String
        let workloads: Int
        /// Captured by this daemon.
        let localWorkloads: Int
        let services: Int
        let gateways: Int
        let routes: Int
        let policies: Int
    }

    struct Connections: Codable, Hashable {
        let inbound: Int
        let outbound: Int
    }

    let ready: Bool
    let notReady: [String]
    let daemon: Daemon
    let mesh: Mesh
    let connections: Connections

    init(asking client: AdminClient) throws(AdminClientFailure) {
        let snapshot = try StatusReport.ask(client, "/snapshot", SnapshotAnswer.self)
        connections = try StatusReport.ask(client, "/connections", Connections.self)
        let readiness = try client.get("/healthz/ready")
        guard readiness.status == 200 || readiness.status == 503 else {
            throw AdminClientFailure(
                description: "\(client.address) answered \(readiness.status) to /healthz/ready: not a Culvert daemon?")
        }
        ready = readiness.status == 200
        notReady = snapshot.notReady
        daemon = snapshot.daemon
        mesh = snapshot.mesh.counts
    }

    private static func ask<T: Decodable>(
        _ client: AdminClient, _ path: String, _ type: T.Type
    ) throws(AdminClientFailure) -> T {
        let response = try client.get(path)
        guard response.status == 200, let answer = try? JSONDecoder().decode(type, from: response.body) else {
            throw AdminClientFailure(
                description: "\(client.address) gave an answer to \(path) that is not a Culvert daemon's "
                    + "(status \(response.status)); another program, or another version?")
        }
        return answer
    }

    var text: String {
        var lines = ["\(daemon.kind) \(daemon.name) (version \(daemon.version), \(daemon.cores) cores): "]
        lines[0] += ready ? "ready" : "not ready"
        if let level = daemon.captureLevel { lines.append("  capture      level \(level)") }
        lines += notReady.map { "  waiting for  \($0)" }
        lines.append(
            "  mesh         generation \(mesh.generation), trust domain \(mesh.trustDomain), mTLS \(mesh.mtls), "
                + "same node \(mesh.sameNode)")
        lines.append(
            "  objects      \(mesh.workloads) workloads (\(mesh.localWorkloads) here), \(mesh.services) services, "
                + "\(mesh.gateways) gateways, \(mesh.routes) routes, \(mesh.policies) policies")
        if let acceleration = daemon.acceleration { lines.append("  acceleration \(acceleration)") }
        lines.append("  connections  \(connections.inbound) inbound, \(connections.outbound) outbound")
        return lines.joined(separator: "\n")
    }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }
}

/// What of `/snapshot` is read.
private struct SnapshotAnswer: Decodable {
    /// An object that is only counted.
    struct Anything: Decodable {}

    struct Workload: Decodable {
        let local: Bool
    }

    struct Mesh: Decodable {
        let generation: UInt64
        let trustDomain: String
        let mtls: String
        let sameNode: String
        let workloads: [Workload]
        let services: [Anything]
        let gateways: [Anything]
        let routes: [Anything]
        let authorizationPolicies: [Anything]
        let peerAuthentications: [Anything]

        var counts: StatusReport.Mesh {
            StatusReport.Mesh(
                generation: generation, trustDomain: trustDomain, mtls: mtls, sameNode: sameNode,
                workloads: workloads.count, localWorkloads: workloads.count { $0.local }, services: services.count,
                gateways: gateways.count, routes: routes.count,
                policies: authorizationPolicies.count + peerAuthentications.count)
        }
    }

    let daemon: StatusReport.Daemon
    let notReady: [String]
    let mesh: Mesh
}
