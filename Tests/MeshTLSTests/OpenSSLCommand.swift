import Foundation
import Glibc

@testable import MeshTLS

/// The `openssl` command: a second implementation of the other side, and a maker of files.
enum OpenSSLCommand {
    struct Failed: Error, CustomStringConvertible {
        let description: String
    }

    static func run(_ arguments: [String], input: String = "") throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments = arguments
        let (stdin, stdout) = (Pipe(), Pipe())
        process.standardInput = stdin
        process.standardOutput = stdout
        process.standardError = FileHandle.nullDevice
        try process.run()
        stdin.fileHandleForWriting.write(Data(input.utf8))
        try stdin.fileHandleForWriting.close()
        let output = stdout.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failed(description: "openssl \(arguments.joined(separator: " ")): \(process.terminationStatus)")
        }
        return String(decoding: output, as: UTF8.self)
    }

    /// A root that may have intermediates below it, valid from the machine's now.
    static func root(key: String) throws -> String {
        try withFolder { folder in
            let path = folder + "/key.pem"
            try Data(key.utf8).write(to: URL(fileURLWithPath: path))
            return try run([
                "req", "-x509", "-new", "-key", path, "-subj", "/CN=test root", "-days", "10",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            ])
        }
    }

    static func request(
        names: String?, key: [String] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    ) throws -> String {
        try withFolder { folder in
            let extra = names.map { ["-addext", "subjectAltName=\($0)"] } ?? []
            return try run(["req", "-new"] + key + ["-nodes", "-keyout", folder + "/key.pem", "-subj", "/"] + extra)
        }
    }

    /// A folder of its own that is gone afterwards.
    static func withFolder<R>(_ body: (String) throws -> R) throws -> R {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("culvert-tls-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try body(folder.path)
    }

    /// Writes what the command needs to be a peer: certificate, key, trust bundle.
    static func write(_ svid: SVID, to folder: String) throws {
        let files = [
            "leaf.pem": svid.certificate.pem, "key.pem": try svid.key.pem,
            "bundle.pem": svid.trustBundle.map(\.pem).joined(),
        ]
        for (name, text) in files {
            try Data(text.utf8).write(to: URL(fileURLWithPath: "\(folder)/\(name)"))
        }
    }
}
