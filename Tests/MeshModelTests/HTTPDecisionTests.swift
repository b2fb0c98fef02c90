import MeshModel
import Testing

@Suite("Which backend a request goes to")
struct HTTPDecisionTests {
    static let services = ["shop", "v1", "v2", "v3"].map {
        Service(name: name("default/\($0)"), ports: [ServicePort(port: 80), ServicePort(port: 81)])
    }

    /// A rule that leads to one service, so that the answer shows which rule was taken.
    func rule(_ backend: String, _ matches: HTTPRoute.Match...) -> HTTPRoute.Rule {
        HTTPRoute.Rule(
            matches: matches.isEmpty ? [.init()] : matches,
            backends: [.init(service: name("default/\(backend)"), port: 80)])
    }

    func route(
        named text: String = "default/r", port: UInt16? = nil, hosts: [String] = [], _ rules: HTTPRoute.Rule...
    ) -> HTTPRoute {
        HTTPRoute(
            name: name(text), parents: [.init(service: name("default/shop"), port: port)], hostnames: hosts,
            rules: rules)
    }

    func decide(
        _ routes: [HTTPRoute], _ path: String = "/", method: String = "GET", host: String = "shop", port: UInt16 = 80,
        headers: [(String, String)] = [], seed: UInt64 = 1
    ) -> HTTPDecision {
        var chance = SeededRandom(seed)
        return MeshSnapshot(services: Self.services, routes: routes).decideHTTP(
            service: name("default/shop"), port: port,
            request: HTTPRequestFacts(
                method: method, path: path, host: host, headers: headers.map { .init(name: $0.0, value: $0.1) }),
            using: &chance)
    }

    /// The backend's short name, or the status.
    func answer(_ decision: HTTPDecision) -> String {
        switch decision {
        case .forward(let backend, _, _, _): backend.name
        case .respond(let status, _, _): "\(status)"
        }
    }

    @Test("A service without routes goes to itself, port by port")
    func noRoutes() {
        let itself = HTTPDecision.forward(backend: name("default/shop"), port: 80, modifiers: [], route: nil)
        #expect(decide([]) == itself)
        #expect(decide([route(port: 81, rule("v1"))]) == itself)
        #expect(answer(decide([route(port: 81, rule("v1"))], port: 81)) == "v1")
        #expect(answer(decide([route(rule("v1"))], port: 81)) == "v1")
    }

    @Test(
        "A path prefix matches whole elements",
        arguments: [
            ("/a", "/a", true), ("/a", "/a/", true), ("/a", "/a/b", true), ("/a", "/ab", false), ("/a/", "/a", true),
            ("/a/", "/a/b", true), ("/a/", "/ab", false), ("/", "/", true), ("/", "/x", true), ("/", "*", true),
            ("/a", "/A", false), ("/a", "/", false),
        ])
    func prefix(_ prefix: String, _ path: String, _ matches: Bool) {
        #expect(answer(decide([route(rule("v1", .init(path: .prefix(prefix))))], path)) == (matches ? "v1" : "404"))
    }

    @Test("Precedence: exact, longest prefix, method, most headers, then order")
    func precedence() {
        let x = HTTPRoute.HeaderMatch(name: "x", value: "1")
        let y = HTTPRoute.HeaderMatch(name: "y", value: "1")
        let shortPrefix = rule("v1", .init(path: .prefix("/a"), headers: [x, y], method: "GET"))
        let longPrefix = rule("v2", .init(path: .prefix("/a/b")))
        let exact = rule("v3", .init(path: .exact("/a/b")))
        let both = [("x", "1"), ("y", "1")]
        #expect(answer(decide([route(shortPrefix, longPrefix, exact)], "/a/b", headers: both)) == "v3")
        #expect(answer(decide([route(shortPrefix, longPrefix)], "/a/b", headers: both)) == "v2")
        #expect(answer(decide([route(longPrefix, shortPrefix)], "/a", headers: both)) == "v1")

        let byMethod = rule("v1", .init(method: "GET"))
        let byHeaders = rule("v2", .init(headers: [x, y]))
        #expect(answer(decide([route(byHeaders, byMethod)], headers: both)) == "v1")
        #expect(answer(decide([route(byHeaders, byMethod)], method: "POST", headers: both)) == "v2")
        #expect(answer(decide([route(rule("v1", .init(headers: [x])), byHeaders)], headers: both)) == "v2")
        #expect(answer(decide([route(rule("v1"), rule("v2"))])) == "v1")
        // Between routes the name decides, whatever their order.
        #expect(answer(decide([route(named: "default/z", rule("v1")), route(named: "default/a", rule("v2"))])) == "v2")
    }

    @Test("Headers match exactly, repeated ones joined; a missing one does not match")
    func headers() {
        let routes = [route(rule("v1", .init(headers: [.init(name: "x", value: "1,2")])))]
        #expect(answer(decide(routes, headers: [("x", "1,2")])) == "v1")
        #expect(answer(decide(routes, headers: [("x", "1"), ("y", "z"), ("x", "2")])) == "v1")
        #expect(answer(decide(routes, headers: [("x", "1")])) == "404")
        #expect(answer(decide(routes)) == "404")
        #expect(answer(decide([route(rule("v1", .init(headers: [.init(name: "x", value: "")])))])) == "404")
    }

    @Test(
        "Hosts: exact before wildcard before any; ports and case do not matter",
        arguments: [
            ("shop.example.com", "v1"), ("SHOP.example.com:8080", "v1"), ("shop.example.com.", "v1"),
            ("cart.example.com", "v2"), ("a.b.example.com", "v2"), ("example.com", "v3"), ("other", "v3"),
            ("[::1]:80", "v3"),
        ])
    func hosts(_ host: String, _ backend: String) {
        let routes = [
            route(named: "default/any", rule("v3", .init(path: .exact("/")))),
            route(named: "default/wild", hosts: ["*.example.com"], rule("v2")),
            route(named: "default/exact", hosts: ["x.test", "shop.example.com"], rule("v1")),
        ]
        #expect(answer(decide(routes, host: host)) == backend)
        #expect(answer(decide([routes[1]], host: "example.com")) == "404")
    }

    @Test("Weights share requests; a weight of 0 gets none; an invalid backend answers 500 for its share")
    func weights() {
        func hits(_ backends: [HTTPRoute.Backend]) -> [String: Int] {
            let routes = [route(HTTPRoute.Rule(backends: backends))]
            return (0..<2000).reduce(into: [:]) { $0[answer(decide(routes, seed: UInt64($1))), default: 0] += 1 }
        }
        func backend(_ service: String, _ weight: UInt32, port: UInt16 = 80) -> HTTPRoute.Backend {
            .init(service: name("default/\(service)"), port: port, weight: weight)
        }
        let split = hits([backend("v1", 70), backend("v2", 0), backend("v3", 30)])
        #expect(split.keys.sorted() == ["v1", "v3"] && (1300...1500).contains(split["v1"] ?? 0))
        let half = hits([backend("v1", 1), backend("gone", 1)])
        #expect(half.keys.sorted() == ["500", "v1"] && (900...1100).contains(half["500"] ?? 0))
        #expect(hits([backend("v1", 0)]) == ["500": 2000] && hits([]) == ["500": 2000])
        #expect(hits([backend("v1", 1, port: 82)]) == ["500": 2000])
        #expect(hits([backend("v1", .max), backend("v1", .max)]) == ["v1": 2000])
    }

    @Test("The answer carries the route's name and both levels of header modifiers, in order")
    func modifiers() {
        let first = HTTPRoute.HeaderModifier(remove: ["a"])
        let second = HTTPRoute.HeaderModifier(remove: ["b"])
        let backend = HTTPRoute.Backend(service: name("default/v1"), port: 81, requestHeaders: [second])
        let routes = [route(HTTPRoute.Rule(requestHeaders: [first], backends: [backend]))]
        #expect(
            decide(routes)
                == .forward(
                    backend: name("default/v1"), port: 81, modifiers: [first, second], route: name("default/r")))
        #expect(decide([route(HTTPRoute.Rule())]) == .respond(status: 500, .noBackend, route: name("default/r")))
        #expect(
            decide([route(rule("v1", .init(method: "PUT")))]) == .respond(status: 404, .routeNotFound, route: nil))
    }

    @Test("A route of another namespace does not bend everybody's traffic")
    func consumerRoute() {
        #expect(answer(decide([route(named: "other/r", rule("v1"))])) == "shop")
    }
}
