import MeshModel
import Testing

@Suite("Addresses, identities and patterns as text")
struct TextTests {
    @Test(
        "IPv6 is printed in RFC 5952's form",
        arguments: [
            ("2001:0DB8:0:0:0:0:0:1", "2001:db8::1"), ("::", "::"), ("::1", "::1"), ("1::", "1::"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
            ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("0:0:1::", "0:0:1::"), ("fe80::a:B:c:d", "fe80::a:b:c:d"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"), ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
            ("::ffff:192.0.2.1", "192.0.2.1"), ("::ffff:c000:201", "192.0.2.1"), ("::1.2.3.4", "::102:304"),
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"),
        ])
    func canonicalForm(_ text: String, _ expected: String) throws {
        let address = try #require(IPAddress(text))
        #expect(address.description == expected)
        #expect(IPAddress(expected) == address)
    }

    @Test(
        "What is not an address is refused",
        arguments: [
            "", ":", ":::", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.04", "1.2.3.", ".1.2.3",
            "1.2.3.4 ", " 1.2.3.4", "+1.2.3.4", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3",
            "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "12345::", "g::", "fe80::1%eth0", "[::1]", "1:", ":1",
            "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "::1.2.3.4:1", "::1.2.3", "::256.1.1.1", "1::2:", ":1::2", "0x1::",
        ])
    func notAnAddress(_ text: String) {
        #expect(IPAddress(text) == nil)
    }

    @Test("Every address survives being written and read")
    func addressRoundTrip() {
        var chance = SeededRandom(1)
        for _ in 0..<2000 {
            // Sparse bits, so that runs of zero groups of every length occur.
            func sparse() -> UInt64 {
                (0..<4).reduce(0) { bits, _ in bits << 16 | (Bool.random(using: &chance) ? 0 : chance.next() & 0xffff) }
            }
            let address = IPAddress(high: sparse(), low: sparse())
            #expect(IPAddress(address.description) == address)
        }
    }

    @Test(
        "Socket addresses",
        arguments: [
            ("192.0.2.1:80", "192.0.2.1", 80), ("[2001:db8::1]:15008", "2001:db8::1", 15008), ("[::1]:0", "::1", 0),
        ])
    func socketAddress(_ text: String, _ ip: String, _ port: UInt16) throws {
        let address = try #require(SocketAddress(text))
        #expect(address.ip == IPAddress(ip) && address.port == port)
        #expect(address.description == text)
    }

    @Test(
        "What is not a socket address is refused",
        arguments: [
            "1.2.3.4", "1.2.3.4:", "1.2.3.4:65536", "1.2.3.4:080", "1.2.3.4:-1", "::1:80", "[1.2.3.4]:80", "[::1]",
            "[::1:80", "::1]:80", ":80", "[]:80", "host:80", "1.2.3.4:80:80",
        ])
    func notASocketAddress(_ text: String) {
        #expect(SocketAddress(text) == nil)
        var copy = text
        #expect(copy.withUTF8 { SocketAddress(utf8: $0) } == nil)
    }

    @Test("A CIDR clears host bits, and a bare address covers itself only")
    func cidr() throws {
        #expect(CIDR("10.1.2.3/8")?.description == "10.0.0.0/8")
        #expect(CIDR("2001:db8:1::/33")?.description == "2001:db8::/33")
        #expect(CIDR("2001:db8::ff/121")?.description == "2001:db8::80/121")
        #expect(CIDR("192.0.2.1")?.description == "192.0.2.1/32")
        #expect(CIDR("::1")?.description == "::1/128")
        let all = try #require(CIDR("0.0.0.0/0"))
        #expect(all.contains(IPAddress(v4: 1)) && !all.contains(IPAddress(high: 1, low: 1)))
        let half = try #require(CIDR("2001:db8::/65"))
        #expect(try half.contains(#require(IPAddress("2001:db8::7fff:0:0:1"))))
        #expect(try !half.contains(#require(IPAddress("2001:db8::8000:0:0:1"))))
    }

    @Test(
        "What is not a CIDR is refused",
        arguments: [
            "", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/08", "10.0.0.0/-1", "10.0.0/8", "1.2.3.4/8/8",
        ])
    func notACIDR(_ text: String) {
        #expect(CIDR(text) == nil)
    }

    @Test("A SPIFFE identity has exactly Istio's shape")
    func identity() {
        let identity = SPIFFEID(trustDomain: "cluster.local", namespace: "default", serviceAccount: "shop")
        #expect(SPIFFEID("spiffe://cluster.local/ns/default/sa/shop") == identity)
        #expect(SPIFFEID(principal: "cluster.local/ns/default/sa/shop") == identity)
        #expect(SPIFFEID(identity.description) == identity && SPIFFEID(principal: identity.principal) == identity)
    }

    @Test(
        "Any other shape is refused",
        arguments: [
            "", "spiffe://", "cluster.local/ns/default/sa/shop", "SPIFFE://cluster.local/ns/default/sa/shop",
            "https://cluster.local/ns/default/sa/shop", "spiffe://cluster.local/ns/default/sa",
            "spiffe://cluster.local/ns/default/sa/shop/", "spiffe://cluster.local/ns/default/sa/shop/x",
            "spiffe://cluster.local/ns//sa/shop", "spiffe://cluster.local/sa/default/ns/shop",
            "spiffe:///ns/default/sa/shop", "spiffe://Cluster.local/ns/default/sa/shop",
            "spiffe://cluster.local:1/ns/default/sa/shop", "spiffe://u@cluster.local/ns/default/sa/shop",
            "spiffe://cluster.local/ns/../sa/shop", "spiffe://cluster.local/ns/./sa/shop",
            "spiffe://cluster.local/ns/default/sa/shop?x", "spiffe://cluster.local/ns/default/sa/sh%6Fp",
            "spiffe://cluster.local/ns/default/sa/sh\u{f6}p", "spiffe://cluster.local/ns/default/sa/shop\0",
        ])
    func notAnIdentity(_ text: String) {
        #expect(SPIFFEID(text) == nil)
    }

    @Test("An identity longer than the standard allows is refused")
    func longIdentity() {
        #expect(SPIFFEID("spiffe://a/ns/b/sa/" + String(repeating: "c", count: 2048 - 19)) != nil)
        #expect(SPIFFEID("spiffe://a/ns/b/sa/" + String(repeating: "c", count: 2048 - 18)) == nil)
    }

    @Test(
        "Patterns as Istio writes them",
        arguments: [
            ("*", "x", true), ("*", "", false), ("a", "a", true), ("a", "ab", false), ("a", "", false),
            ("a*", "ab", true), ("a*", "a", true), ("a*", "ba", false), ("*a", "ba", true), ("*a", "a", true),
            ("*a", "ab", false), ("*a*", "ba*", true), ("*a*", "bac", false), ("a*b", "a*b", true), ("", "", true),
            ("**", "x*", true), ("**", "x", false), ("e\u{301}", "\u{e9}", false),
        ])
    func patterns(_ pattern: String, _ value: String, _ matches: Bool) {
        #expect(StringMatch(pattern: pattern).matches(value) == matches)
        #expect(StringMatch(pattern: pattern).pattern == pattern)
    }

    @Test("A namespaced name as text")
    func objectName() {
        #expect(ObjectName("default/shop") == ObjectName(namespace: "default", name: "shop"))
        #expect(["", "shop", "/shop", "default/", "a/b/c"].allSatisfy { ObjectName($0) == nil })
    }
}
