import Foundation
import MeshModel
import Testing

@testable import MeshTestKit

/// The capture on a lab's wire, against real programs.
@Suite struct CaptureTests {
    let marker = "marker-\(UInt64.random(in: 0 ... .max))"

    @Test func clearTextIsFoundOnBothFamilies() async throws {
        try await Lab.with { lab in
            let client = try await lab.addPod("client", on: lab.nodes[0])
            let server = try await lab.addPod("server", on: lab.nodes[1])
            _ = try await lab.startWebServer(in: server, page: "hello")
            for address in [server.v4, "[\(server.v6)]"] {
                let capture = try lab.capture(markers: [marker, "never sent"])
                _ = try await lab.curl("http://\(address):8080/\(marker)", in: client)
                let report = try await capture.report()
                #expect(report.markerHits.map(\.marker) == [marker])
                #expect(report.isComplete)
                let flow = try #require(report.outsideTunnels().first)
                #expect(report.outsideTunnels().count == 1 && report.tunnels().isEmpty)
                #expect(flow.server.port == 8080 && flow.beginning.hasPrefix("GET /marker-"))
                guard case .notTLS13 = flow.security else {
                    Issue.record("\(flow)")
                    return
                }
            }
        }
    }

    @Test func trafficInsideANodeIsNotOnTheWire() async throws {
        try await Lab.with { lab in
            let client = try await lab.addPod("client", on: lab.nodes[0])
            let server = try await lab.addPod("server", on: lab.nodes[0])
            _ = try await lab.startWebServer(in: server, page: "hello")
            let capture = try lab.capture(markers: [marker])
            #expect(try await lab.curl("http://\(server.v4):8080/\(marker)", in: client).code == 200)
            #expect(try await capture.report().flows.isEmpty)
        }
    }

    @Test(arguments: ["-tls1_3", "-tls1_2"])
    func realTLSIsJudgedByItsVersion(version: String) async throws {
        try await Lab.with { lab in
            let client = try await lab.addPod("client", on: lab.nodes[0])
            let server = try await lab.addPod("server", on: lab.nodes[1])
            let (key, certificate) = ("\(lab.folder)/key.pem", "\(lab.folder)/certificate.pem")
            try await lab.check(
                Launch(
                    "openssl",
                    [
                        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                        "/CN=lab", "-keyout", key, "-out", certificate,
                    ]))
            let process = try lab.spawn(
                Launch(
                    "openssl", ["s_server", "-accept", "15008", "-key", key, "-cert", certificate, "-www", version],
                    in: server), name: "tls")
            try await lab.waitUntilUp(process) { process.log.line(containing: ["ACCEPT"]) != nil }
            let capture = try lab.capture(markers: [marker])
            let answer = try await lab.curl(
                "https://\(server.v4):15008/", in: client, options: ["-k", "-H", "X-Marker: \(marker)"])
            #expect(answer.code == 200, "\(answer)")
            let report = try await capture.report()
            #expect(report.markerHits.isEmpty && report.isComplete && report.outsideTunnels().isEmpty)
            let flow = try #require(report.tunnels().first)
            switch (version, flow.security) {
            case ("-tls1_3", .tls13(_, let records)): #expect(records > 2)
            case ("-tls1_2", .notTLS13): break
            default: Issue.record("\(flow)")
            }
        }
    }

    @Test func bulkIsSeenToTheLastByte() async throws {
        try await Lab.with { lab in
            let client = try await lab.addPod("client", on: lab.nodes[0])
            let server = try await lab.addPod("server", on: lab.nodes[1])
            _ = try await lab.startWebServer(in: server, page: "hello", bigFileMegabytes: 16)
            let capture = try lab.capture(markers: [marker])
            let answer = try await lab.curl("http://\(server.v4):8080/big", in: client, options: ["-o", "/dev/null"])
            #expect(answer.code == 200)
            let report = try await capture.report()
            #expect(report.isComplete)
            #expect(report.flows.map(\.bytesToClient).reduce(0, +) > 16 << 20)
        }
    }
}
