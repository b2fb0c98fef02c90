import Foundation
import MeshTestKit
import Testing

extension EndToEnd {
    /// A node proxy that cannot start says what is wrong, where, and what to do, and ends.
    @Suite("Starting with bad input", .serialized)
    struct StartTests {
        private struct Authority {
            let certificate: String
            let key: String
            var pair: (certificate: String, key: String) { (certificate, key) }
        }

        /// An authority made with the openssl command, as an operator would.
        private func authority(
            _ mesh: MeshLab, _ name: String, trustDomain: String = "cluster.local", days: Int = 30
        ) async throws -> Authority {
            let base = "\(mesh.lab.folder)/\(name)"
            let made = Authority(certificate: "\(base).pem", key: "\(base).key")
            try """
            basicConstraints=critical,CA:TRUE
            keyUsage=critical,keyCertSign,cRLSign
            subjectKeyIdentifier=hash
            subjectAltName=URI:spiffe://\(trustDomain)

            """.write(toFile: "\(base).ext", atomically: true, encoding: .utf8)
            try await mesh.lab.check(
                Launch("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.key]))
            try await mesh.lab.check(
                Launch("openssl", ["req", "-new", "-key", made.key, "-subj", "/O=\(name)", "-out", "\(base).csr"]))
            try await mesh.lab.check(
                Launch(
                    "openssl",
                    [
                        "x509", "-req", "-in", "\(base).csr", "-extfile", "\(base).ext", "-days", "\(days)", "-signkey",
                        made.key, "-out", made.certificate,
                    ]))
            return made
        }

        /// Starts the proxy of node-1, which must end by itself with a message that holds every word.
        private func refused(
            _ mesh: MeshLab, _ what: String, status: Int32 = 1, arguments: [String]? = nil, user: String? = nil,
            around prefix: [String] = [], _ words: String..., location: SourceLocation = #_sourceLocation
        ) async throws {
            let command = prefix + [try Daemons.path("culvert-node")] + (arguments ?? mesh.arguments(1))
            let result = try await mesh.lab.run(
                Launch(command[0], Array(command.dropFirst()), in: mesh.lab.nodes[0], user: user),
                within: MeshLab.patience)
            let said = result.output + result.errors
            #expect(
                result.status == .exited(status) && !result.timedOut, "\(what): \(result.status): \(said)",
                sourceLocation: location)
            for word in words {
                #expect(
                    said.localizedCaseInsensitiveContains(word), "\(what): no '\(word)' in: \(said)",
                    sourceLocation: location)
            }
            for trace in ["Fatal error", "Stack dump", "*** ", "NodeError(", "Error(kind"] {
                #expect(!said.contains(trace), "\(what): \(said)", sourceLocation: location)
            }
        }

        /// The usual arguments with one flag's value changed.
        private func changed(_ mesh: MeshLab, _ flag: String, _ value: String) -> [String] {
            var arguments = mesh.arguments(1)
            if let index = arguments.firstIndex(of: flag) { arguments[index + 1] = value }
            return arguments
        }

        @Test("flags")
        func flags() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                try await refused(mesh, "no flags", status: 2, arguments: [], "--node-name", "CULVERT_NODE_NAME")
                try await refused(
                    mesh, "no configuration", status: 2, arguments: ["--node-name", "node-1"], "--config")
                try await refused(
                    mesh, "an unknown flag", status: 2, arguments: mesh.arguments(1) + ["--fast"], "--fast")
                try await refused(
                    mesh, "a bad number", status: 2, arguments: changed(mesh, "--cores", "many"), "--cores", "many")
                try await refused(
                    mesh, "a number too big", status: 2, arguments: changed(mesh, "--cores", "1000"), "cores", "64")
            }
        }

        @Test("configuration")
        func configuration() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                let nowhere = "\(mesh.lab.folder)/nowhere"
                try await refused(mesh, "no such path", arguments: changed(mesh, "--config", nowhere), nowhere)
                let wrong = [
                    ("kind: [\n", "broken.yaml:"),
                    ("apiVersion: v1\nkind: Gadget\nmetadata: {name: g}\n", "Gadget"),
                    ("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: many}\n", "spec.ports"),
                    (MeshLab.workload(mesh.late, addresses: ["10.0.0.0.1"]), "10.0.0.0.1"),
                    (MeshLab.workload(mesh.client), "client"),
                ]
                for (text, word) in wrong {
                    try mesh.write("broken", text)
                    try await refused(mesh, text, "broken.yaml:", word)
                }
            }
        }

        @Test("authority")
        func authority() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                let good = try await authority(mesh, "good")
                let second = try await authority(mesh, "second")
                let expired = try await authority(mesh, "expired", days: -1)
                let foreign = try await authority(mesh, "foreign", trustDomain: "example.org")
                let absent = "\(mesh.lab.folder)/absent"

                try mesh.write("mesh", mesh.meshObject(authority: (absent, good.key)))
                try await refused(mesh, "no certificate", absent, good.key, "restore")
                try mesh.write("mesh", mesh.meshObject(authority: (good.certificate, absent)))
                try await refused(mesh, "no key", absent, good.certificate, "restore")
                try mesh.write("mesh", mesh.meshObject(authority: (good.certificate, second.key)))
                try await refused(mesh, "mismatched", good.certificate, second.key, "does not belong")
                try mesh.write("mesh", mesh.meshObject(authority: expired.pair))
                try await refused(mesh, "expired", expired.certificate, "expired", "replace")
                try mesh.write("mesh", mesh.meshObject(authority: foreign.pair))
                try await refused(mesh, "another trust domain", "example.org", "cluster.local")
                chmod(good.key, 0o644)
                try mesh.write("mesh", mesh.meshObject(authority: good.pair))
                try await refused(mesh, "a key for all to read", good.key, "644", "chmod 600")
                chmod(good.key, 0o600)
                try "rubbish\n".write(toFile: "\(mesh.lab.folder)/rubbish", atomically: true, encoding: .utf8)
                try mesh.write("mesh", mesh.meshObject(authority: ("\(mesh.lab.folder)/rubbish", good.key)))
                try await refused(mesh, "rubbish", "rubbish")

                // With its rights back, the operator's own authority serves.
                try mesh.write("mesh", mesh.meshObject(authority: good.pair))
                for number in [1, 2] { try mesh.start(number) }
                for number in [1, 2] { try await mesh.waitUntilReady(number) }
                #expect(try await mesh.probe(mesh.far.v4, from: mesh.client).outcome == "ok")
            }
        }

        @Test("rights and mounts")
        func machine() async throws {
            try await MeshLab.with(nodes: []) { mesh in
                let folder = mesh.lab.folder
                try await refused(mesh, "not root", user: "nobody", "root")
                for capability in ["net_admin", "bpf", "sys_admin"] {
                    // CAP_SYS_ADMIN stands in for CAP_BPF, as the kernel has it.
                    let without = capability == "bpf" ? "-bpf,-sys_admin" : "-\(capability)"
                    try await refused(
                        mesh, "without \(capability)", around: ["setpriv", "--bounding-set", without, "--"],
                        "CAP_\(capability)")
                }
                try await refused(mesh, "no bpffs", arguments: changed(mesh, "--bpffs", folder), folder, "bpf")
                try await refused(mesh, "no cgroup2", arguments: changed(mesh, "--cgroup", folder), folder, "cgroup2")
                try await refused(
                    mesh, "no such cgroup", arguments: changed(mesh, "--cgroup", "\(folder)/none"), "\(folder)/none")
            }
        }

        @Test("ports of the daemon", arguments: [("15000", "admin"), ("15020", "metrics"), ("15021", "ready")])
        func ports(port: String, name: String) async throws {
            try await MeshLab.with(nodes: []) { mesh in
                try await mesh.serve(port: Int(port) ?? 0, in: mesh.lab.nodes[0])
                try await refused(mesh, "port \(port) is taken", port, "ss -ltnp")
            }
        }
    }
}
