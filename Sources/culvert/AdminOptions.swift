import ArgumentParser
import Foundation
import MeshModel

/// Which daemon a command asks.
struct AdminOptions: ParsableArguments {
    @Option(help: "Address of the daemon's admin port.", transform: AdminOptions.address)
    var admin = SocketAddress(ip: IPAddress(v4: 0x7f00_0001), port: 15000)

    var client: AdminClient { AdminClient(address: admin) }

    /// Says why the daemon could not be asked and what to look at, and is exit status 3.
    func unreachable(_ failure: AdminClientFailure, command: String) -> ExitCode {
        let remedy = """
              Is the daemon running?                 pgrep -a culvert-
              Does it listen there?                  ss -ltnp 'sport = :\(admin.port)'
              Is it in another network namespace?    ip netns exec NAME culvert \(command)
            """
        FileHandle.standardError.write(Data("culvert \(command): \(failure)\n\(remedy)\n".utf8))
        return ExitCode(3)
    }

    static func address(_ text: String) throws -> SocketAddress {
        guard let address = SocketAddress(text) else {
            throw ValidationError("\"\(text)\" is not ADDRESS:PORT, as in 127.0.0.1:15000 or [::1]:15000")
        }
        return address
    }
}
