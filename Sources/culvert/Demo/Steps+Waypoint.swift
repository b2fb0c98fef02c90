import MeshTestKit

extension DemoStep {
    static let waypointSteps = [split, waypointDown]

    private static let split = DemoStep(
        id: "split", title: "A weighted route in the waypoint",
        proves:
            "where a label asks for it, HTTP goes through an unprivileged waypoint that routes 70/30 and sets a header"
    ) { mesh, evidence in
        let (count, wanted, tolerance) = (400, 280, 40)
        // One connection for all: the waypoint decides for each request, not for each connection.
        let answer = try await mesh.lab.curl(
            "\(DemoConfiguration.reviews.urls[0])/split/[1-\(count)]", in: mesh.client, within: .seconds(30))
        let one = answer.body.count(of: "reviews-v1 header=weighted")
        let two = answer.body.count(of: "reviews-v2 header=weighted")
        evidence.expect(
            one + two == count,
            "\(one + two) of \(count) requests over one connection answered, all with the header set")
        evidence.expect(
            abs(one - wanted) <= tolerance,
            "v1 \(one), v2 \(two): expected \(wanted) and \(count - wanted), ±\(tolerance) (over four standard deviations)"
        )
        evidence.expect(
            mesh.reviewsV1.requests(containing: "/split/") == one
                && mesh.reviewsV2.requests(containing: "/split/") == two,
            "the access logs of both nginx agree")
        let chosen = try await mesh.lab.curl(
            "\(DemoConfiguration.reviews.urls[1])/chosen/[1-20]", in: mesh.client,
            options: ["--header", "x-version: v2"], within: .seconds(10))
        evidence.expect(
            chosen.body.count(of: "reviews-v2 header=\n") == 20,
            "20 requests over IPv6 with 'x-version: v2': \(chosen.body.count(of: "reviews-v2")) answered by v2")
        if let process = mesh.waypointProcess, let user = process.user {
            evidence.expect(user != 0, "the waypoint runs as user \(user), not as root")
        }
    }

    private static let waypointDown = DemoStep(
        id: "waypoint-down", title: "The waypoint killed",
        proves: "a service bound to a waypoint is never reached around it: callers get refusals until it is back"
    ) { mesh, evidence in
        let url = DemoConfiguration.reviews.urls[0]
        let mark = mesh.proxies[0].log.end
        try await mesh.waypointProcess?.killHard()
        for url in DemoConfiguration.reviews.urls {
            let answer = try await mesh.lab.curl("\(url)/around", in: mesh.client)
            evidence.expect(answer.isRefused(within: .seconds(2)), "curl \(url): \(answer.summary)")
        }
        let line = try? await mesh.proxies[0].log.waitForLine(
            containing: ["waypoint_unavailable"], after: mark, within: .seconds(5))
        evidence.expect(line != nil, "node-1: \(line ?? "no line with waypoint_unavailable")")
        let around = mesh.reviewsV1.requests(containing: "/around") + mesh.reviewsV2.requests(containing: "/around")
        evidence.expect(around == 0, "neither nginx saw a request")
        try await mesh.startWaypoint()
        let clock = ContinuousClock()
        let begin = clock.now
        try await until("the route works again", within: .seconds(10)) {
            try await mesh.lab.curl("\(url)/back", in: mesh.client).code == 200
        }
        evidence.expect(
            true, "waypoint started again: served \(begin.duration(to: clock.now).milliseconds) ms after it was ready")
    }
}

extension String {
    func count(of part: String) -> Int { ranges(of: part).count }
}
