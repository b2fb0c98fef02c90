import MeshModel
import MeshWire
import Testing

@Suite struct AuthorityTests {
    @Test(arguments: [
        ("10.0.0.1:80", "10.0.0.1:80"), ("[::1]:15008", "[::1]:15008"), ("[2001:DB8::1]:1", "[2001:db8::1]:1"),
        ("[::ffff:10.0.0.1]:65535", "10.0.0.1:65535"),
        ("Shop.Default.svc.cluster.local:8080", "shop.default.svc.cluster.local:8080"),
        ("a:1", "a:1"), ("1a:1", "1a:1"), ("x-1.b2:443", "x-1.b2:443"),
    ])
    func readsTheThreeForms(text: String, canonical: String) throws {
        let authority = try Authority(text)
        #expect(authority.description == canonical)
        #expect(try Authority(authority.description) == authority)
    }

    @Test(arguments: [
        ("", AuthorityError.empty), ("10.0.0.1", .noPort), ("[::1]", .noPort), ("shop", .noPort),
        ("10.0.0.1:", .badPort), ("10.0.0.1:0", .badPort), ("10.0.0.1:65536", .badPort), ("10.0.0.1:080", .badPort),
        ("10.0.0.1:+80", .badPort), ("10.0.0.1: 80", .badPort), ("10.0.0.1:80 ", .badPort), ("shop:http", .badPort),
        ("10.0.0.300:80", .badAddress), ("10.0.1:80", .badAddress), ("010.0.0.1:80", .badAddress),
        ("1:80", .badAddress),
        ("a.1:80", .badAddress), ("::1:80", .badAddress), ("2001:db8::1:80", .badAddress),
        ("[::1%eth0]:80", .badAddress),
        ("[10.0.0.1]:80", .badAddress), ("[::1:80", .badAddress), ("[shop]:80", .badAddress), ("::1]:80", .badAddress),
        (":80", .badHost), ("user@shop:80", .badHost), ("shop.:80", .badHost), (".shop:80", .badHost),
        ("a..b:80", .badHost), ("-a:80", .badHost), ("a-:80", .badHost), ("a b:80", .badHost), ("a_b:80", .badHost),
        ("shöp:80", .badHost), ("a/b:80", .badHost), ("*:80", .badHost),
    ])
    func refusesEverythingElse(text: String, error: AuthorityError) {
        #expect(throws: error) { try Authority(text) }
    }

    @Test func namesHaveTheLengthsOfDNS() throws {
        let label = String(repeating: "a", count: 63)
        _ = try Authority("\(label).\(label):1")
        #expect(throws: AuthorityError.badHost) { try Authority("a\(label):1") }
        let long = Array(repeating: label, count: 4).joined(separator: ".")
        #expect(throws: AuthorityError.badHost) { try Authority("\(long):1") }
    }

    @Test func randomTextNeverCrashesAndReadsBack() {
        var chance = TestRandom(seed: .random(in: 0...UInt64.max))
        let alphabet = Array("0123456789abc.:[]-%@ ".utf8)
        for _ in 0..<20_000 {
            let bytes = (0..<Int.random(in: 0...16, using: &chance)).map { _ in alphabet.randomElement(using: &chance)!
            }
            let text = String(decoding: bytes, as: UTF8.self)
            guard let authority = try? Authority(text) else { continue }
            #expect((try? Authority(authority.description)) == authority, "\(text), seed \(chance.seed)")
            #expect(authority.port > 0)
        }
    }
}

@Suite struct ConnectTests {
    private let workload = Workload(
        name: ObjectName(namespace: "default", name: "shop-1"), labels: ["app": "shop", "version": "v2"],
        addresses: [IPAddress(v4: 0x0a0a_0102)], node: "n", locality: Locality(region: "eu", zone: "eu-1"))

    private func block(_ fields: [(String, String)]) -> HeaderBlock {
        HeaderBlock(fields.map { HeaderField(name: $0.0, value: $0.1) })
    }

    @Test func requestsReadBack() throws {
        var chance = TestRandom(seed: 1)
        let request = ConnectRequest(
            authority: .address(SocketAddress("10.10.1.3:8080")!), baggage: Baggage(workload),
            forwarded: Forwarded(client: SocketAddress("[2001:db8::7]:4000"), host: "shop.default"),
            traceparent: TraceParent(using: &chance), network: "east")
        let fields = request.headerFields
        #expect(fields[0] == HeaderField(name: ":method", value: "CONNECT"))
        #expect(fields[1] == HeaderField(name: ":authority", value: "10.10.1.3:8080"))
        #expect(!fields.contains { $0.name == ":scheme" || $0.name == ":path" })
        #expect(fields.filter(\.isVolatile).map(\.name) == ["forwarded", "traceparent"])
        #expect(try ConnectRequest(HeaderBlock(fields)) == request)
    }

    @Test func badRequestsHaveTypedErrors() {
        func error(_ fields: [(String, String)]) -> ConnectRequestError? {
            do {
                _ = try ConnectRequest(block(fields))
                return nil
            } catch { return error }
        }
        #expect(error([]) == .notConnect(method: ""))
        #expect(error([(":method", "GET"), (":authority", "a:1")]) == .notConnect(method: "GET"))
        #expect(error([(":method", "connect"), (":authority", "a:1")]) == .notConnect(method: "connect"))
        #expect(error([(":method", "CONNECT")]) == .noAuthority)
        #expect(error([(":method", "CONNECT"), (":authority", "")]) == .noAuthority)
        #expect(error([(":method", "CONNECT"), (":authority", "a")]) == .badAuthority(.noPort, text: "a"))
        #expect(
            error([(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")]) == .unexpectedPseudoHeader)
        #expect(
            error([(":method", "CONNECT"), (":authority", "a:1"), ("forwarded", "for=;;"), ("baggage", "ü=1")]) == nil)
        #expect(ConnectRequestError.noAuthority.status == 400 && ConnectRequestError.headersTooLarge.status == 431)
    }

    @Test func onlyTwoHundredIsSuccess() throws {
        let response = ConnectResponse(status: 200, baggage: Baggage(workload))
        #expect(ConnectResponse(HeaderBlock(response.headerFields)) == response && response.isSuccess)
        #expect(!ConnectResponse(status: 204).isSuccess && !ConnectResponse(status: 503).isSuccess)
        for text in ["", "20", "2000", "2x0", " 20", "-20"] {
            #expect(ConnectResponse.status(of: block([(":status", text)])) == nil)
        }
        #expect(ConnectResponse.status(of: block([])) == nil)
    }

    @Test func baggageDescribesTheWorkload() {
        let baggage = Baggage(workload, cluster: "c1")
        #expect(
            baggage.text == "k8s.cluster.name=c1,k8s.namespace.name=default,k8s.pod.name=shop-1,service.name=shop,"
                + "service.version=v2,cloud.region=eu,cloud.availability_zone=eu-1")
        #expect(Baggage([baggage.text]) == baggage)
        var plain = workload
        plain.labels = [:]
        #expect(Baggage(plain).service == "shop-1" && Baggage(plain).version == "latest")
    }

    @Test func baggageIsReadLeniently() {
        let baggage = Baggage([
            "k8s.deployment.name=d, k8s.namespace.name = ns ;p=1,unknown=x,service.name=,cloud.region,a=b=c",
            "cloud.availability_zone=z",
        ])
        #expect(baggage.kind == .deployment && baggage.workload == "d" && baggage.namespace.isEmpty)
        #expect(baggage.service.isEmpty && baggage.region.isEmpty && baggage.zone == "z")
        #expect(Baggage(["service.name=a", "service.name=ü"]).isEmpty)
        #expect(Baggage(["service.name=a;ttl"]).service == "a")
        #expect(Baggage([]).isEmpty && Baggage([",,,=,==,;"]).isEmpty)
    }

    @Test func valuesThatTheHeaderCannotCarryAreLeftOut() {
        var baggage = Baggage()
        baggage.namespace = "a,b"
        baggage.region = "x\r\ny"
        baggage.zone = "ü"
        baggage.service = "ok"
        #expect(baggage.text == "service.name=ok")
    }

    @Test func forwardedReadsBack() {
        let forwarded = Forwarded(client: SocketAddress("10.0.0.1:4000"), host: "shop.default.svc")
        #expect(forwarded.text == "for=\"10.0.0.1:4000\";host=shop.default.svc")
        #expect(Forwarded(forwarded.text) == forwarded)
        let quoted = Forwarded(client: nil, host: "a:1\"")
        #expect(quoted.text == "host=\"a:1\\\"\"")
        #expect(Forwarded(quoted.text) == quoted)
        #expect(Forwarded(client: nil, host: "a\r\nb").text.isEmpty)
    }

    @Test(arguments: [
        ("For=\"[::1]:80\" ; HOST=x , host=y", "[::1]:80", "x"), ("for=_hidden;host=h", nil, "h"),
        ("for=unknown", nil, nil), ("proto=http;by=a", nil, nil), ("for=192.0.2.1", nil, nil),
    ])
    func forwardedElementsAreRead(text: String, client: String?, host: String?) {
        let forwarded = Forwarded(text)
        #expect(forwarded?.client?.description == client && forwarded?.host == host && forwarded != nil)
    }

    @Test(arguments: [
        "", ";", "for", "for=", "for=\"a", "for=a b", "=a", "for=a;;host=b", "for=\"\\", "for=a,", "host=\"ü\"",
    ])
    func malformedForwardedIsNothing(text: String) {
        #expect(Forwarded(text) == nil)
    }

    @Test func traceParentsReadBack() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        #expect(TraceParent(text)?.description == "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
        var chance = TestRandom(seed: 7)
        let made = TraceParent(using: &chance)
        #expect(made.description.utf8.count == 55 && TraceParent(made.description) == made)
    }

    @Test(arguments: [
        "", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-001",
        "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
    ])
    func malformedTraceParentsAreNothing(text: String) {
        #expect(TraceParent(text) == nil)
    }
}
