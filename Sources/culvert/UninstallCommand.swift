import ArgumentParser
import Foundation
import MeshKernel

/// Removes what a node proxy left on the machine.
struct UninstallCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uninstall",
        abstract: "Remove a stopped node proxy's capture from this machine.",
        discussion: """
            Example: culvert uninstall --node-name node-1

            A node proxy that stops leaves its capture in place, so that nothing goes out in clear text until it is
            back. This puts the network namespaces of its workloads back as they were and removes hooks, maps and pins.
            Refused while a node proxy of this name runs. Give the same --cgroup, --bpffs and --run-dir as to the proxy.
            """)

    @Option(help: "The --node-name of the proxy.")
    var nodeName: String

    @Option(
        help: ArgumentHelp("Where its connect hooks are attached. Default: the root of cgroup2.", valueName: "path"))
    var cgroup: String?

    @Option(help: ArgumentHelp("The bpffs with its maps and links.", valueName: "path"))
    var bpffs = "/sys/fs/bpf"

    @Option(help: ArgumentHelp("The folder of its lock.", valueName: "path"))
    var runDir = "/run/culvert"

    @Option(help: "Print for people (text) or for programs (json).")
    var output = OutputFormat.text

    func run() throws {
        do throws(KernelError) {
            try NodeCapture.uninstall(
                options: CaptureOptions(
                    nodeName: nodeName, cgroupPath: cgroup, bpffsPath: bpffs, runtimeDirectory: runDir))
        } catch {
            FileHandle.standardError.write(Data("culvert uninstall: \(error)\n".utf8))
            throw ExitCode(1)
        }
        switch output {
        case .text: print("nothing of node \(nodeName) is left on this machine")
        case .json: print("{\"node\": \"\(nodeName)\", \"removed\": true}")
        }
    }
}
