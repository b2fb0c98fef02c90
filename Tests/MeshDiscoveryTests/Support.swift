import Foundation
import MeshDiscovery
import Testing

/// Reads YAML as a file called `mesh.yaml`.
func reading(_ yaml: String) -> ConfigurationReading {
    ConfigurationReading(parsing: [ConfigurationFile(name: "mesh.yaml", bytes: Array(yaml.utf8))], path: "mesh.yaml")
}

/// Everything said about it, errors first.
func findings(_ yaml: String) -> [String] {
    let reading = reading(yaml)
    return (reading.errors + reading.warnings).map(\.description)
}

/// The objects of YAML that must be valid.
func objects(_ yaml: String, sourceLocation: SourceLocation = #_sourceLocation) -> ObjectSet {
    let reading = reading(yaml)
    #expect(reading.errors.map(\.description) == [], sourceLocation: sourceLocation)
    return reading.objects
}

/// A directory that goes away with the test.
final class Folder {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("culvert-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// As careful programs do it: a new file, then a rename over the old one.
    func replace(_ name: String, with text: String) throws {
        let temporary = file(".\(name.replacing("/", with: "_")).new")
        try Data(text.utf8).write(to: URL(fileURLWithPath: temporary))
        try #require(rename(temporary, file(name)) == 0)
    }

    /// As editors that write in place do it: truncate, write, close.
    func overwrite(_ name: String, with text: String) throws {
        let handle = try #require(fopen(file(name), "w"))
        fputs(text, handle)
        fclose(handle)
    }

    func remove(_ name: String) throws {
        try FileManager.default.removeItem(atPath: file(name))
    }

    func makeDirectory(_ name: String) throws {
        try FileManager.default.createDirectory(atPath: file(name), withIntermediateDirectories: true)
    }

    /// A symlink put in the place of another one in one step, as the kubelet does it.
    func link(_ name: String, to target: String) throws {
        let temporary = file(".\(name).link")
        try #require(symlink(target, temporary) == 0)
        try #require(rename(temporary, file(name)) == 0)
    }
}

func workload(_ name: String, _ address: String) -> String {
    """
    apiVersion: culvert.dev/v1alpha1
    kind: Workload
    metadata: {name: \(name)}
    spec: {addresses: ["\(address)"], node: n1, protocol: TLS}

    """
}
