import ArgumentParser
import Foundation
import MeshAdmin
import MeshKernel
import MeshNode
import MeshTelemetry

/// The node proxy: mutual TLS and policy for every workload of this machine.
@main
struct CulvertNode: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "culvert-node",
        abstract: "The node proxy: captures this machine's workloads and carries their traffic under mutual TLS.",
        discussion: """
            Example: culvert-node --node-name node-1 --config /etc/culvert

            Every flag has an environment twin: --node-name is CULVERT_NODE_NAME. SIGTERM drains; SIGHUP is not needed.
            Upgrade without a refused connection: start the new version with --takeover while the old one runs; the old
            one finishes what it has and ends by itself. (At capture level L2 stop it first.)
            Needs root, cgroup2 and bpffs: 'culvert preflight' says whether this machine has them.
            """)

    @Option(help: "Which Workload.spec.node is this machine.")
    var nodeName: String?

    @Option(help: ArgumentHelp("A YAML file or a folder of them; watched.", valueName: "path"))
    var config: String?

    @Option(help: "Data cores, one thread each. Default: the machine's CPUs, at most 4.")
    var cores: Int?

    @Option(help: ArgumentHelp("Where the connect hooks attach. Default: the root of cgroup2.", valueName: "path"))
    var cgroup: String?

    @Option(
        help: ArgumentHelp(
            "The kubelet's cgroup: its health probes reach workloads under any policy. Default: where it usually runs.",
            valueName: "path"))
    var kubeletCgroup: String?

    @Option(help: ArgumentHelp("A mounted bpffs for maps and links. Default: /sys/fs/bpf.", valueName: "path"))
    var bpffs: String?

    @Option(help: ArgumentHelp("Lock and sockets. Default: /run/culvert.", valueName: "path"))
    var runDir: String?

    @Option(
        help: ArgumentHelp(
            "The embedded CA, when the Mesh object names no files. Default: /var/lib/culvert.", valueName: "path"))
    var stateDir: String?

    @Option(help: "Port of the admin endpoints, on localhost. Default: 15000.")
    var adminPort: Int?

    @Option(help: "Port of /metrics. Default: 15020.")
    var metricsPort: Int?

    @Option(help: "Port of /healthz/ready. Default: 15021.")
    var readinessPort: Int?

    @Option(help: "Log lines as text or json. Default: text.")
    var logFormat: String?

    @Option(
        help: ArgumentHelp(
            "Capture at this level, L0 to L3, or refuse to start. Default: the best that works here.",
            valueName: "level"))
    var captureLevel: String?

    @Flag(help: "Take over from a running node proxy of this name; no connection is refused meanwhile. Not at L2.")
    var takeover = false

    @Option(
        help: ArgumentHelp(
            "How long a hand-over may take: the newer proxy gives up after it, the older says so after twice as long. "
                + "Default: 30.", valueName: "seconds"))
    var takeoverLimit: Int?

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
        let options: NodeOptions
        do {
            options = try resolvedOptions()
        } catch let refusal as DaemonSettings.Refusal {
            throw ValidationError(refusal.description)
        }
        do {
            try await NodeDaemon(options).run()
        } catch let error as NodeError {
            FileHandle.standardError.write(Data("culvert-node: \(error)\n".utf8))
            throw ExitCode(1)
        }
    }

    private func resolvedOptions() throws -> NodeOptions {
        let settings = DaemonSettings(environment: ProcessInfo.processInfo.environment)
        var options = NodeOptions(
            nodeName: try settings.required(nodeName, "node-name"),
            configuration: try settings.required(config, "config"),
            cores: try settings.number(cores, "cores", in: 1...64)
                ?? min(4, ProcessInfo.processInfo.activeProcessorCount))
        options.cgroup = settings.text(cgroup, "cgroup")
        options.kubeletCgroup = settings.text(kubeletCgroup, "kubelet-cgroup")
        options.bpffs = settings.text(bpffs, "bpffs") ?? options.bpffs
        options.runDirectory = settings.text(runDir, "run-dir") ?? options.runDirectory
        options.stateDirectory = settings.text(stateDir, "state-dir") ?? options.stateDirectory
        let ports = 0...65535
        options.adminPort = try settings.number(adminPort, "admin-port", in: ports) ?? options.adminPort
        options.metricsPort = try settings.number(metricsPort, "metrics-port", in: ports) ?? options.metricsPort
        options.readinessPort = try settings.number(readinessPort, "readiness-port", in: ports) ?? options.readinessPort
        options.logFormat = try settings.choice(logFormat, "log-format", LogFormat.self) ?? options.logFormat
        options.captureLevel = try settings.choice(captureLevel, "capture-level", CaptureLevel.self)
        options.takesOver = try settings.flag(takeover, "takeover")
        if let limit = try settings.number(takeoverLimit, "takeover-limit", in: 1...3600) {
            options.takeoverLimit = .seconds(limit)
        }
        return options
    }
}
