import Foundation
import MeshModel
import MeshTestKit

extension DemoStep {
    static let trafficSteps = [page, redis, iperf, sameNode]

    private static let page = DemoStep(
        id: "page", title: "A page through a virtual address, across nodes",
        proves: "an unmodified curl reaches an unmodified nginx on the other node, and nginx sees who really called"
    ) { mesh, evidence in
        for (url, own) in zip(DemoConfiguration.shop.urls, [mesh.client.v4, mesh.client.v6]) {
            let before = mesh.shop.accessLog.end
            let answer = try await mesh.lab.curl("\(url)/hello", in: mesh.client)
            evidence.expect(
                answer.code == 200 && answer.body.contains(mesh.marker),
                "curl \(url)/hello from \(own): \(answer.summary)")
            let line = try? await mesh.shop.accessLog.waitForLine(
                containing: ["/hello"], after: before, within: .seconds(2))
            evidence.expect(
                line?.hasPrefix("\(own) ") == true, "nginx logged the client's own address: \(line ?? "nothing")")
        }
    }

    private static let redis = DemoStep(
        id: "redis", title: "Redis through the mesh",
        proves: "a protocol of its own, with redis-cli and redis-server as they are"
    ) { mesh, evidence in
        let value = "value-\(UInt32.random(in: 0 ... .max))"
        for address in [DemoConfiguration.cache.v4, DemoConfiguration.cache.v6] {
            let set = try await mesh.lab.run(
                Launch("redis-cli", ["-h", address, "set", "key", value], in: mesh.client), within: .seconds(10))
            evidence.expect(set.text == "OK", "redis-cli -h \(address) set key \(value): \(set.summary)")
            let get = try await mesh.lab.run(
                Launch("redis-cli", ["-h", address, "get", "key"], in: mesh.client), within: .seconds(10))
            evidence.expect(get.text == value, "redis-cli -h \(address) get key: \(get.summary)")
        }
    }

    private static let iperf = DemoStep(
        id: "iperf3", title: "Bulk data both ways",
        proves: "iperf3 moves 256 MiB up and 256 MiB down between the nodes"
    ) { mesh, evidence in
        let wanted = 256 << 20
        for (direction, flags) in [("up", []), ("down", ["--reverse"])] {
            let result = try await mesh.lab.run(
                Launch(
                    "iperf3", ["--client", DemoConfiguration.speed.v4, "--bytes", "\(wanted)", "--json"] + flags,
                    in: mesh.client), within: .seconds(60))
            let report = IperfReport(json: result.output)
            let rate = String(format: "%.2f Gbit/s", report.bitsPerSecond / 1e9)
            evidence.expect(
                result.isSuccess && report.sent >= wanted && report.received >= wanted / 10 * 9 && report.error == nil,
                "\(direction): \(report.sent) bytes sent, \(report.received) received at \(rate)"
                    + (report.error.map { ", \($0)" } ?? (result.isSuccess ? "" : ", \(result.status)")))
        }
    }

    private static let sameNode = DemoStep(
        id: "same-node", title: "A call inside one node",
        proves:
            "two workloads of one node talk without a proxy in the path, metered all the same, with nothing on the wire"
    ) { mesh, evidence in
        let capture = try mesh.lab.capture(markers: [mesh.marker])
        let before = mesh.proxies[0].log.end
        for (url, own) in zip(DemoConfiguration.reviewsV2.urls, [mesh.client.v4, mesh.client.v6]) {
            let mark = mesh.reviewsV2.accessLog.end
            let answer = try await mesh.lab.curl("\(url)/near-\(mesh.marker)", in: mesh.client)
            evidence.expect(answer.code == 200, "curl \(url)/near from \(own): \(answer.summary)")
            let line = try? await mesh.reviewsV2.accessLog.waitForLine(
                containing: ["/near"], after: mark, within: .seconds(2))
            evidence.expect(
                line?.hasPrefix("\(own) ") == true, "nginx logged the client's own address: \(line ?? "nothing")")
        }
        let words = [mesh.client.v4, "reviews-v2", "tier=\"direct\""]
        let line = try? await mesh.proxies[0].log.waitForLine(containing: words, after: before, within: .seconds(5))
        evidence.expect(line != nil, "the kernel carried it: \(line ?? "no line in its access log")")
        let report = try await capture.report()
        try await capture.stop()
        let flows = report.flows.filter { flow in
            [mesh.reviewsV2.host.v4, mesh.reviewsV2.host.v6].contains(flow.server.ip.description)
        }
        evidence.expect(
            flows.isEmpty && report.markerHits.isEmpty, "\(report.frames) frames on the wire meanwhile, none of it")
    }
}

/// What `iperf3 --json` says at the end.
private struct IperfReport {
    var sent = 0
    /// Less than was sent: the receiver stops counting when the sender says that it is done, and what is still in
    /// buffers then is not counted.
    var received = 0
    var bitsPerSecond = 0.0
    var error: String?

    init(json: String) {
        guard let root = try? JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any] else {
            error = "no report"
            return
        }
        error = root["error"] as? String
        let end = root["end"] as? [String: Any]
        func number(_ sum: String, _ name: String) -> NSNumber {
            (end?[sum] as? [String: Any])?[name] as? NSNumber ?? 0
        }
        sent = number("sum_sent", "bytes").intValue
        received = number("sum_received", "bytes").intValue
        bitsPerSecond = number("sum_received", "bits_per_second").doubleValue
    }
}

extension CurlAnswer {
    /// One line for people.
    var summary: String {
        let time = "in \(duration.milliseconds) ms"
        return code == 0 ? "no answer (\(error.isEmpty ? "\(status)" : error)) \(time)" : "HTTP \(code) \(time)"
    }

    /// Cut off before any response, and not by the time limit.
    func isRefused(within limit: Duration) -> Bool {
        code == 0 && status != .exited(28) && !status.isSuccess && duration < limit
    }
}

extension CommandResult {
    var summary: String {
        isSuccess ? text : "\(status) \(text) \(errors.trimmingCharacters(in: .whitespacesAndNewlines))"
    }
}
