import ArgumentParser
import Foundation
import MeshModel
import MeshNode

/// The node proxy: mutual TLS and policy for every workload of this machine.
@main
struct CulvertNode: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "culvert-node",
        abstract: "The node proxy: captures this machine's workloads and carries their traffic under mutual TLS.",
        discussion: """
            Example: culvert-node --node-name node-1 --config /etc/culvert

            Every flag has an environment twin: --node-name is CULVERT_NODE_NAME. SIGTERM drains; SIGHUP is not needed.
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

    @Option(help: ArgumentHelp("A mounted bpffs for maps and links. Default: /sys/fs/bpf.", valueName: "path"))
    var bpffs: String?

    @Option(help: ArgumentHelp("Lock and identity socket. Default: /run/culvert.", valueName: "path"))
    var runDir: String?

    @Option(help: ArgumentHelp("The embedded CA, when the Mesh object names no files. Default: /var/lib/culvert.", valueName: "path"))
    var stateDir: String?

    @Option(help: "Port of the admin endpoints, on localhost. Default: 15000.")
    var adminPort: Int?

    @Option(help: "Port of /metrics. Default: 15020.")
    var metricsPort: Int?

    @Option(help: "Port of /healthz/ready. Default: 15021.")
    var readinessPort: Int?

    @Option(help: "Log lines as text or json. Default: text.")
    var logFormat: String?

    mutating func run() async throws {
        let settings = Settings()
        var options = NodeOptions(
            nodeName: try settings.required(nodeName, "node-name"),
            configuration: try settings.required(config, "config"),
            cores: try settings.number(cores, "cores", in: 1...64)
                ?? min(4, ProcessInfo.processInfo.activeProcessorCount))
        options.cgroup = settings.text(cgroup, "cgroup")
        options.bpffs = settings.text(bpffs, "bpffs") ?? options.bpffs
        options.runDirectory = settings.text(runDir, "run-dir") ?? options.runDirectory
        options.stateDirectory = settings.text(stateDir, "state-dir") ?? options.stateDirectory
        options.adminPort = try settings.number(adminPort, "admin-port", in: 0...65535) ?? options.adminPort
        options.metricsPort = try settings.number(metricsPort, "metrics-port", in: 0...65535) ?? options.metricsPort
        options.readinessPort = try settings.number(readinessPort, "readiness-port", in: 0...65535) ?? options.readinessPort
        if let text = settings.text(logFormat, "log-format") {
            guard let format = NodeOptions.LogFormat(rawValue: text) else {
                throw ValidationError("--log-format is '\(text)'; it must be text or json")
            }
            options.logFormat = format
        }
        do {
            try await NodeDaemon(options).run()
        } catch let error as NodeError {
            FileHandle.standardError.write(Data("culvert-node: \(error)\n".utf8))
            throw ExitCode(1)
        }
    }
}

/// A flag, else its environment twin.
private struct Settings {
    let environment = ProcessInfo.processInfo.environment

    func text(_ flag: String?, _ name: String) -> String? {
        flag ?? environment["CULVERT_" + name.uppercased().replacingOccurrences(of: "-", with: "_")]
    }

    func required(_ flag: String?, _ name: String) throws -> String {
        guard let value = text(flag, name), !value.isEmpty else {
            throw ValidationError("--\(name) is missing: give the flag or set CULVERT_\(name.uppercased().replacingOccurrences(of: "-", with: "_"))")
        }
        return value
    }

    func number(_ flag: Int?, _ name: String, in range: ClosedRange<Int>) throws -> Int? {
        guard let value = text(flag.map(String.init), name) else { return nil }
        guard let number = Int(value), range.contains(number) else {
            throw ValidationError("--\(name) is '\(value)'; it must be a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }
}
