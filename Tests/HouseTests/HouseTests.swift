import Foundation
import Testing

/// The rules of the house: who may import whom, how long a file may be, what the privileged process must not contain.
struct HouseTests {
    /// Swift modules and the project modules each may import; C modules are listed with their one or two importers.
    static let mayImport: [String: Set<String>] = {
        let l4: Set = ["MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshTelemetry"]
        let control: Set = ["MeshDiscovery", "MeshIdentity", "MeshProxy", "MeshAdmin"]
        return [
            "MeshModel": [], "MeshWire": ["MeshModel"], "MeshRuntime": [], "MeshTLS": ["MeshModel"],
            "MeshTelemetry": ["MeshModel"], "MeshKernel": ["MeshModel"], "MeshDiscovery": ["MeshModel"],
            "MeshIdentity": ["MeshModel", "MeshTLS"], "MeshProxy": l4, "MeshHTTP": l4.union(["MeshProxy"]),
            "MeshAdmin": ["MeshModel", "MeshTelemetry"],
            "MeshNode": l4.union(control).union(["MeshKernel"]),
            "MeshWaypoint": l4.union(control).union(["MeshHTTP"]),
        ]
    }()
    static let cModules: [String: Set<String>] = [
        "CMeshABI": ["MeshKernel"], "CMeshSystem": ["MeshRuntime", "MeshKernel"], "COpenSSL": ["MeshTLS"],
        "CBPF": ["MeshKernel"], "CNgHTTP2": ["MeshWire"],
    ]
    static let withoutFoundation: Set = [
        "MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshProxy", "MeshHTTP",
    ]

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    struct SourceFile {
        let path: String
        let lines: [Substring]

        /// The module names this file imports.
        var imports: [String] {
            lines.compactMap { line in
                let words = line.split(separator: " ").drop { $0.hasPrefix("@") }
                let rest = words.drop { ["public", "package", "internal", "fileprivate", "private"].contains($0) }
                guard rest.first == "import" else { return nil }
                let kinds: Set = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
                let name = rest.dropFirst().drop { kinds.contains(String($0)) }.first
                return name.map { String($0.prefix { $0 != "." }) }
            }
        }
    }

    static func files(under folder: String, _ suffixes: [String]) throws -> [SourceFile] {
        let base = root.appendingPathComponent(folder)
        let walker = try #require(FileManager.default.enumerator(atPath: base.path))
        var files: [SourceFile] = []
        for case let name as String in walker where suffixes.contains(where: name.hasSuffix) {
            let text = try String(contentsOf: base.appendingPathComponent(name), encoding: .utf8)
            files.append(
                SourceFile(
                    path: "\(folder)/\(name)", lines: text.split(separator: "\n", omittingEmptySubsequences: false)))
        }
        return files
    }

    @Test func importsFollowTheTable() throws {
        var departures: [String] = []
        var seen = 0
        for file in try Self.files(under: "Sources", [".swift"]) {
            let module = String(file.path.split(separator: "/")[1])
            for name in file.imports {
                seen += 1
                if let owners = Self.cModules[name], !owners.contains(module) {
                    departures.append("\(file.path): \(module) imports \(name)")
                }
                if let allowed = Self.mayImport[module], Self.mayImport[name] != nil, name != module,
                    !allowed.contains(name)
                {
                    departures.append("\(file.path): \(module) may not import \(name)")
                }
                if Self.withoutFoundation.contains(module), name.hasPrefix("Foundation") || name.hasPrefix("NIO") {
                    departures.append("\(file.path): \(module) may not import \(name)")
                }
            }
        }
        #expect(seen > 100, "the walk found no imports: it looks at the wrong place")
        #expect(departures == [])
    }

    @Test func theTableHasNoCircles() {
        func reaches(_ from: String, _ target: String, _ visited: inout Set<String>) -> Bool {
            for next in Self.mayImport[from] ?? [] where visited.insert(next).inserted {
                if next == target || reaches(next, target, &visited) { return true }
            }
            return false
        }
        for module in Self.mayImport.keys {
            var visited: Set<String> = []
            #expect(!reaches(module, module, &visited), "\(module) reaches itself")
        }
    }

    @Test func filesStayShort() throws {
        let sources =
            try Self.files(under: "Sources", [".swift", ".c", ".h"])
            + Self.files(under: "Tests", [".swift", ".c", ".h"])
        for file in sources where !file.path.hasSuffix("vmlinux.h") {
            #expect(file.lines.count <= 501, "\(file.path) has \(file.lines.count) lines; split it by topic")
        }
        for file in try Self.files(under: "BPF", [".bpf.c"]) {
            #expect(
                file.lines.count <= 251, "\(file.path) has \(file.lines.count) lines; the cap for a BPF program is 250")
        }
        for main in ["culvert-node", "culvert-waypoint"] {
            let total = try Self.files(under: "Sources/\(main)", [".swift"]).reduce(0) { $0 + $1.lines.count }
            #expect(total > 0 && total < 300, "\(main) is \(total) lines; a main wires and exits")
        }
    }

    @Test func noLooseEnds() throws {
        let marks = ["TO" + "DO", "FIX" + "ME", "not " + "implemented"]
        for file in try Self.files(under: "Sources", [".swift"]) {
            for (number, line) in file.lines.enumerated() {
                for mark in marks where line.contains(mark) {
                    Issue.record("\(file.path):\(number + 1): \(mark)")
                }
            }
        }
    }

    /// The privileged process has no code that could parse an application's HTTP.
    @Test func theNodeContainsNoSymbolOfMeshHTTP() throws {
        let node = try #require(Self.binary("culvert-node"), "build culvert-node first: swift build --build-tests")
        let waypoint = try #require(Self.binary("culvert-waypoint"))
        #expect(try Self.mentions("8MeshHTTP", in: waypoint), "the check itself is blind: the waypoint must have them")
        #expect(try !Self.mentions("8MeshHTTP", in: node))
    }

    private static func binary(_ name: String) -> URL? {
        let folder = Bundle.main.bundleURL.deletingLastPathComponent()
        let candidates = [
            Bundle(for: Anchor.self).bundleURL.deletingLastPathComponent(), folder,
            root.appendingPathComponent(".build/debug"),
        ]
        return candidates.map { $0.appendingPathComponent(name) }.first {
            FileManager.default.isExecutableFile(atPath: $0.path)
        }
    }

    /// Swift mangles a module's name with its length in front, so `8MeshHTTP` marks every symbol of that module.
    private static func mentions(_ mangled: String, in binary: URL) throws -> Bool {
        try Data(contentsOf: binary, options: .alwaysMapped).range(of: Data(mangled.utf8)) != nil
    }

    private final class Anchor {}

    /// Tests/README.md names tests as `Suite.function`; they are in `Suite.swift` or a `Suite+Topic.swift`.
    @Test func testsThatAreNamedExist() throws {
        let page = try String(contentsOf: Self.root.appendingPathComponent("Tests/README.md"), encoding: .utf8)
        let named = page.matches(of: /`(\w+Tests)\.(\w+)`/).map { (suite: $0.1, function: $0.2) }
        #expect(named.count > 50, "the walk found no names: the page is written otherwise")
        let sources = try Self.files(under: "Tests", [".swift"])
        for (suite, function) in named {
            let isThere = sources.contains { file in
                (file.path.hasSuffix("/\(suite).swift") || file.path.contains("/\(suite)+"))
                    && file.lines.contains { $0.contains("func \(function)(") || $0.contains("func `\(function)`(") }
            }
            #expect(isThere, "Tests/README.md names \(suite).\(function), which is not there")
        }
    }
}
