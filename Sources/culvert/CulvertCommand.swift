import ArgumentParser
import Foundation

/// The command line of Culvert.
///
/// Exit codes are one set for all commands: 0 done, 1 the thing asked about is not so, 2 bad usage, 3 could not find out.
@main
struct CulvertCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "culvert",
        abstract:
            "A service mesh data plane for Linux: check a machine, try the mesh, check its configuration, look inside.",
        discussion: """
            Start here:
              culvert preflight          can this machine run the node proxy?
              culvert demo               the whole mesh on this machine, on real traffic
              culvert validate mesh/     is this configuration right?
              culvert status             what does the local node proxy see?
              culvert capture explain shop/cart   which hook catches what of this workload?

            Exit codes: 0 done, 1 the thing asked about is not so, 2 bad usage, 3 could not find out.
            """,
        subcommands: [
            PreflightCommand.self, ValidateCommand.self, DemoCommand.self, StatusCommand.self,
            CaptureCommand.self, UninstallCommand.self,
        ])

    static func main() async {
        do {
            var command = try parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch {
            end(with: error)
        }
    }

    /// The parser's own code for bad usage is 64 (EX_USAGE); ours is 2.
    private static func end(with error: any Error) -> Never {
        let code = exitCode(for: error)
        let message = fullMessage(for: error)
        if !message.isEmpty {
            let output = code.isSuccess ? FileHandle.standardOutput : FileHandle.standardError
            output.write(Data("\(message)\n".utf8))
        }
        Foundation.exit(code == .validationFailure ? 2 : code.rawValue)
    }
}
