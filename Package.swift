// swift-tools-version: 6.2
import PackageDescription

/// The one settings constant of every Swift target. With CULVERT_STRICT set, as Deploy/test does, warnings are errors.
let strict: [SwiftSetting] =
    [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
    ] + (Context.environment["CULVERT_STRICT"] == nil ? [] : [.treatAllWarnings(as: .error)])

func library(_ name: String, _ dependencies: [Target.Dependency], plugins: [Target.PluginUsage] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Sources/\(name)", swiftSettings: strict, plugins: plugins)
}

func main(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .executableTarget(
        name: name,
        dependencies: dependencies + [.product(name: "ArgumentParser", package: "swift-argument-parser")],
        path: "Sources/\(name)", swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: "Tests/\(name)", exclude: exclude, swiftSettings: strict)
}

let package = Package(
    name: "culvert",
    products: [
        .library(name: "MeshKit", targets: ["MeshKit"]),
        .library(name: "MeshTestKit", targets: ["MeshTestKit"]),
        .executable(name: "culvert", targets: ["culvert"]),
        .executable(name: "culvert-node", targets: ["culvert-node"]),
        .executable(name: "culvert-waypoint", targets: ["culvert-waypoint"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    ],
    targets: [
        // C: one header shared with BPF/, shims, system libraries.
        .target(name: "CMeshABI", path: "Sources/CMeshABI"),
        .target(name: "CMeshSystem", path: "Sources/CMeshSystem"),
        .systemLibrary(
            name: "COpenSSL", path: "Sources/COpenSSL", pkgConfig: "libssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(
            name: "CBPF", path: "Sources/CBPF", pkgConfig: "libbpf", providers: [.apt(["libbpf-dev", "libelf-dev"])]),
        .systemLibrary(
            name: "CNgHTTP2", path: "Sources/CNgHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .plugin(name: "CompileBPF", capability: .buildTool(), path: "Sources/Plugins/CompileBPF"),

        library("MeshModel", []),
        library("MeshWire", ["MeshModel", "CNgHTTP2"]),
        library("MeshRuntime", ["CMeshSystem"]),
        library("MeshTLS", ["MeshModel", "COpenSSL"]),
        library("MeshTelemetry", ["MeshModel", .product(name: "Logging", package: "swift-log")]),
        library("MeshKernel", ["MeshModel", "CBPF", "CMeshABI", "CMeshSystem"], plugins: ["CompileBPF"]),
        library("MeshDiscovery", ["MeshModel", .product(name: "Yams", package: "Yams")]),
        library("MeshIdentity", ["MeshModel", "MeshTLS"]),
        library("MeshProxy", ["MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshTelemetry"]),
        library(
            "MeshHTTP",
            [
                "MeshProxy", "MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshTelemetry",
                .product(name: "HTTPTypes", package: "swift-http-types"),
            ]),
        library(
            "MeshAdmin",
            [
                "MeshModel", "MeshTelemetry", .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
            ]),
        library(
            "MeshNode",
            [
                "MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshTelemetry", "MeshKernel", "MeshDiscovery",
                "MeshIdentity", "MeshProxy", "MeshAdmin",
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ]),
        library(
            "MeshWaypoint",
            [
                "MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshTelemetry", "MeshDiscovery", "MeshIdentity",
                "MeshProxy", "MeshHTTP", "MeshAdmin",
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "UnixSignals", package: "swift-service-lifecycle"),
            ]),
        library(
            "MeshKit",
            [
                "MeshModel", "MeshWire", "MeshRuntime", "MeshTLS", "MeshTelemetry", "MeshKernel", "MeshDiscovery",
                "MeshIdentity", "MeshProxy", "MeshHTTP", "MeshAdmin", "MeshNode", "MeshWaypoint",
            ]),

        library("MeshTestKit", ["MeshKit", "MeshModel", "MeshRuntime", "MeshTLS"]),

        main("culvert-node", ["MeshNode", "MeshKernel", "MeshAdmin", "MeshTelemetry"]),
        main("culvert-waypoint", ["MeshWaypoint", "MeshModel", "MeshAdmin", "MeshTelemetry"]),
        main("culvert", ["MeshModel", "MeshKernel", "MeshDiscovery", "MeshTestKit"]),

        // Traffic for benchmarks and life-cycle tests; apart from what is shipped.
        .executableTarget(name: "culvert-load", path: "Tests/Load", cSettings: [.define("_GNU_SOURCE")]),
        // Counts allocations and descriptors of a test process.
        .target(name: "CMeshAllocations", path: "Tests/CMeshAllocations"),
        tests("HouseTests", ["culvert-node", "culvert-waypoint"]),
        tests("MeshModelTests", ["MeshModel"]),
        tests("MeshWireTests", ["MeshWire", "MeshModel", "CMeshAllocations"]),
        tests("MeshRuntimeTests", ["MeshRuntime", "CMeshAllocations"]),
        tests("MeshTLSTests", ["MeshTLS", "MeshModel"]),
        tests("MeshIdentityTests", ["MeshIdentity", "MeshTLS", "MeshModel"]),
        tests("MeshTelemetryTests", ["MeshTelemetry", "MeshModel", .product(name: "Logging", package: "swift-log")]),
        tests("MeshDiscoveryTests", ["MeshDiscovery", "MeshModel"]),
        tests("MeshKernelTests", ["MeshKernel", "MeshModel", "MeshRuntime", "culvert", "culvert-load"]),
        tests(
            "MeshProxyTests",
            [
                "MeshProxy", "MeshTestKit", "MeshModel", "MeshRuntime", "MeshTLS", "MeshWire", "MeshTelemetry",
                "CMeshAllocations",
            ]),
        tests("MeshHTTPTests", ["MeshHTTP", "MeshModel", "MeshRuntime"]),
        tests(
            "MeshAdminTests",
            ["MeshAdmin", "MeshTelemetry", "MeshModel", .product(name: "Logging", package: "swift-log")]),
        tests(
            "EndToEndTests", ["MeshTestKit", "MeshModel", "culvert-node", "culvert-waypoint", "culvert"],
            exclude: ["Tools"]),
        tests("KernelRunTests", ["culvert"], exclude: ["Tools"]),
        tests("MeshTestKitTests", ["MeshTestKit", "MeshModel"]),
        tests(
            "CulvertStatusTests",
            [
                "culvert", "MeshAdmin", "MeshTelemetry", "MeshModel", .product(name: "Logging", package: "swift-log"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
    ]
)
