import ArgumentParser
import Foundation
import MeshAdmin
import MeshModel
import MeshTelemetry
import MeshWaypoint

/// A waypoint proxy: HTTP routes and policy for the services bound to one Gateway.
@main
struct CulvertWaypoint: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "culvert-waypoint",
        abstract: "A waypoint proxy: HTTP routes and policy for the services bound to one Gateway.",
        discussion: """
            Example: culvert-waypoint --gateway default/shop-waypoint --config /etc/culvert

            Runs without privileges, at the address of a Workload labelled with the Gateway's name, and fetches its
            certificate from the node proxy of its machine. Every flag has an environment twin: --gateway is
            CULVERT_GATEWAY. SIGTERM drains.
            """)

    @Option(help: ArgumentHelp("The Gateway this is a waypoint of.", valueName: "namespace/name"))
    var gateway: String?

    @Option(help: ArgumentHelp("A YAML file or a folder of them; watched.", valueName: "path"))
    var config: String?

    @Option(help: "Data cores, one thread each. Default: the machine's CPUs, at most 4.")
    var cores: Int?

    @Option(
        help: ArgumentHelp(
            "The node proxy's identity socket. Default: the only one below /run/culvert.", valueName: "path"))
    var identitySocket: String?

    @Option(help: "Port of the admin endpoints, on localhost. Default: 15000.")
    var adminPort: Int?

    @Option(help: "Port of /metrics. Default: 15020.")
    var metricsPort: Int?

    @Option(help: "Port of /healthz/ready. Default: 15021.")
    var readinessPort: Int?

    @Option(help: "Log lines as text or json. Default: text.")
    var logFormat: String?

    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            // The parser's own code for bad usage is 64 (EX_USAGE); ours is 2, as for every command of Culvert.
            let code = exitCode(for: error)
            let message = fullMessage(for: error)
            if !message.isEmpty {
                let output = code.isSuccess ? FileHandle.standardOutput : FileHandle.standardError
                output.write(Data("\(message)\n".utf8))
            }
            Foundation.exit(code == .validationFailure ? 2 : code.rawValue)
        }
    }

    mutating func run() async throws {
        let options: WaypointOptions
        do {
            options = try resolvedOptions()
        } catch let refusal as DaemonSettings.Refusal {
            throw ValidationError(refusal.description)
        }
        do {
            try await WaypointDaemon(options).run()
        } catch let error as WaypointError {
            FileHandle.standardError.write(Data("culvert-waypoint: \(error)\n".utf8))
            throw ExitCode(1)
        }
    }

    private func resolvedOptions() throws -> WaypointOptions {
        let settings = DaemonSettings(environment: ProcessInfo.processInfo.environment)
        let name = try settings.required(gateway, "gateway")
        let parts = name.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ !$0.isEmpty }) else {
            throw ValidationError("--gateway is '\(name)'; it must be NAMESPACE/NAME")
        }
        var options = WaypointOptions(
            gateway: ObjectName(namespace: String(parts[0]), name: String(parts[1])),
            configuration: try settings.required(config, "config"),
            cores: try settings.number(cores, "cores", in: 1...64)
                ?? min(4, ProcessInfo.processInfo.activeProcessorCount))
        options.identitySocket = settings.text(identitySocket, "identity-socket")
        let ports = 0...65535
        options.adminPort = try settings.number(adminPort, "admin-port", in: ports) ?? options.adminPort
        options.metricsPort = try settings.number(metricsPort, "metrics-port", in: ports) ?? options.metricsPort
        options.readinessPort = try settings.number(readinessPort, "readiness-port", in: ports) ?? options.readinessPort
        options.logFormat = try settings.choice(logFormat, "log-format", LogFormat.self) ?? options.logFormat
        return options
    }
}
